"""The quantizations that llama.cpp's tools make, and about how large each is. Pure.

Bits a weight are those of a model of some billions of weights, mixtures and scales included, as llama.cpp's own table
has them; a small model, whose embedding weighs more, comes out larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A quantization: bits a weight, whether it is whole numbers of the checkpoint, whether it needs a calibration."""

    bits: float
    whole: bool = False
    needs_importance: bool = False


KINDS: Mapping[str, Kind] = {
    "f16": Kind(16, whole=True),
    "f32": Kind(32, whole=True),
    "bf16": Kind(16, whole=True),
    "q8_0": Kind(8.5),
    "q6_k": Kind(6.6),
    "q5_k_m": Kind(5.7),
    "q5_k_s": Kind(5.6),
    "q5_1": Kind(6.0),
    "q5_0": Kind(5.6),
    "q4_k_m": Kind(4.9),
    "q4_k_s": Kind(4.7),
    "q4_1": Kind(5.1),
    "q4_0": Kind(4.7),
    "iq4_nl": Kind(4.7),
    "iq4_xs": Kind(4.5),
    "q3_k_l": Kind(4.3),
    "q3_k_m": Kind(4.0),
    "q3_k_s": Kind(3.7),
    "iq3_m": Kind(3.9),
    "iq3_s": Kind(3.7),
    "iq3_xs": Kind(3.5, needs_importance=True),
    "iq3_xxs": Kind(3.3, needs_importance=True),
    "q2_k": Kind(3.2),
    "q2_k_s": Kind(3.0, needs_importance=True),
    "iq2_m": Kind(2.9, needs_importance=True),
    "iq2_s": Kind(2.7, needs_importance=True),
    "iq2_xs": Kind(2.6, needs_importance=True),
    "iq2_xxs": Kind(2.4, needs_importance=True),
    "iq1_m": Kind(2.1, needs_importance=True),
    "iq1_s": Kind(2.0, needs_importance=True),
    "tq2_0": Kind(2.6),
    "tq1_0": Kind(2.3),
}
"""Name, as a recipe writes it -> what it is. The ternary ones are for models that were trained ternary."""


def size_bytes(parameters: int, quantization: str) -> int:
    """Return about how large a model of so many weights is; as f32 for a name that is not known."""
    kind = KINDS.get(quantization)
    return int(parameters * (kind.bits if kind is not None else 32) / 8)
