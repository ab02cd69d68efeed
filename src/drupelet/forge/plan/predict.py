"""The predictions, each a few lines of arithmetic. Pure. Sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from drupelet.forge.formats.kinds import KINDS
from drupelet.forge.plan.boards import Board
from drupelet.forge.shape import ModelShape

_MIB = 1 << 20
BASE_BYTES = 38 * _MIB
"""The child before it loads anything: interpreter and inference library (x86-64, measured)."""
TOKEN_BYTES = 160
"""What a token of the vocabulary takes beside its row: its text, its place in the tables."""
BATCH_TOKENS = 512
"""llama.cpp's n_ubatch: the buffers are made for that many positions at once."""
SPARE = 0.1
"""As the manifest's own memory figures: allocators differ from machine to machine."""
BITS_ELSEWHERE = {"int4": 4.6, "int8": 8.3}
"""Bits a weight of formats that are not llama.cpp's, scales included."""
SPEED_MAX = 500.0
"""Tokens a second beyond which bandwidth no longer decides, so that nothing faster is predicted."""
KL_KNOWN = {"f32": 0.0, "f16": 0.0, "bf16": 0.0, "q8_0": 0.00015, "q6_k": 0.0007, "q4_k_m": 0.0018, "q4_0": 0.0089}
"""Mean KL to f16 of a 2M-parameter Llama. Larger models lose less."""
KL_SCALE = 2.0
"""Of the others: this times 4 to the power of minus the bits, which the known ones are near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What running a file takes, in parts."""

    weights: int
    cache: int
    buffers: int
    base: int

    @property
    def total(self) -> int:
        """All of it, and a tenth to spare."""
        return int((self.weights + self.cache + self.buffers + self.base) * (1 + SPARE))


def bits_of(quantization: str) -> float | None:
    """Return the bits a weight takes in a file of this quantization, None if that is not known."""
    kind = KINDS.get(quantization.lower())
    return BITS_ELSEWHERE.get(quantization.lower()) if kind is None else kind.bits


def predict_size(parameters: int, quantization: str) -> int | None:
    """Return the size of a file that is not made yet."""
    bits = bits_of(quantization)
    return None if bits is None else int(parameters * bits / 8)


def predict_memory(size_bytes: int, shape: ModelShape, *, feed_forward: int, context_tokens: int) -> Memory:
    """Return the memory of a child with one conversation of `context_tokens`."""
    batch = min(BATCH_TOKENS, context_tokens)
    return Memory(
        weights=size_bytes,
        cache=shape.cache_bytes(context_tokens),
        buffers=4 * batch * (2 * feed_forward + 6 * shape.hidden + context_tokens),
        base=BASE_BYTES + TOKEN_BYTES * shape.vocab,
    )


def predict_speed(size_bytes: int, shape: ModelShape, board: Board, *, context_tokens: int) -> tuple[float, float]:
    """Return the least and the most tokens a second to expect, with half of the context filled."""
    read = size_bytes + shape.cache_bytes(context_tokens // 2)
    low, high = (board.bandwidth * share / read for share in (board.share_low, board.share_high))
    return min(low, SPEED_MAX), min(high, SPEED_MAX)


def predict_kl(quantization: str) -> float | None:
    """Return the mean KL to f16 that others measured, or what the bits suggest; None if they are not known."""
    known = KL_KNOWN.get(quantization.lower())
    bits = bits_of(quantization)
    return known if known is not None or bits is None else float(KL_SCALE * 4.0**-bits)
