"""Llama (2, 3, 3.1 to 3.3, and what is built like it) and Mistral, both `llama` in GGUF.

Hugging Face rotates the two halves of a head, llama.cpp's `llama` graph neighbours: rows of queries and keys are
reordered. Llama 3.1's own scaling of the rotary frequencies travels as a tensor, `rope_freqs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import gguf
import numpy as np
from numpy.typing import NDArray

from drupelet.forge.architectures.config import DecoderConfig, Rope
from drupelet.forge.architectures.port import PLAIN_ROPES, Change, Decoder, Shape, describe_head_width
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.shape import ModelShape


class LlamaConfig(DecoderConfig, frozen=True, kw_only=True):
    """A Llama's or Mistral's config."""

    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None


class Llama(Decoder[LlamaConfig]):
    """See the module."""

    NAMES = ("LlamaForCausalLM", "MistralForCausalLM")
    ARCH = gguf.MODEL_ARCH.LLAMA
    CONFIG = LlamaConfig
    ROPES = (*PLAIN_ROPES, "llama3")

    @property
    def shape(self) -> ModelShape:
        """Its sizes. llama.cpp has no sliding window for this architecture: past it, it would compute something else.
        So the model's context ends where its window does."""
        window = self.config.sliding_window
        whole = super().shape
        return whole if window is None or window < 1 else replace(whole, context=min(whole.context, window))

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, with biases where the config has them."""
        shapes = super().layer()
        biased = [name for name in shapes if "proj" in name]
        for name in biased:
            if self.config.attention_bias if "self_attn" in name else self.config.mlp_bias:
                shapes[name.replace(".weight", ".bias")] = shapes[name][:1]
        return shapes

    def change(self, source: str) -> Change:
        """Reorder queries and keys."""
        if ".self_attn.q_proj." in source:
            return Change(heads=self.config.num_attention_heads)
        if ".self_attn.k_proj." in source:
            return Change(heads=self.config.kv_heads)
        return Change()

    def extra(self) -> Mapping[str, NDArray[np.float32]]:
        """Llama 3's factors for each rotary frequency."""
        if self.rope.kind != "llama3":
            return {}
        return {"rope_freqs.weight": llama3_factors(self.rope, self.config.head_width)}

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, and what is `llama`'s own."""
        super().describe(writer)
        describe_head_width(self.config, writer)
        writer.add_vocab_size(self.config.vocab_size)
        writer.add_rope_dimension_count(self.config.head_width)

    def contradictions(self) -> Iterator[str]:
        """All, and frequencies that make no sense."""
        yield from super().contradictions()
        if self.rope.kind == "llama3" and not self.rope.number("high_freq_factor", 4.0) > self.rope.number(
            "low_freq_factor", 1.0
        ):
            yield "rope scaling's high_freq_factor is not above its low_freq_factor"


def llama3_factors(rope: Rope, width: int) -> NDArray[np.float32]:
    """Return by what each rotary frequency of a head of `width` is divided.

    Short waves stay, long ones are divided by `factor`, those between are blended (the scaling of Llama 3.1, as in
    Hugging Face's `_compute_llama3_parameters`).
    """
    factor, context = rope.number("factor", 8.0), rope.number("original_max_position_embeddings", 8192)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    if high <= low:
        raise CheckpointBad("rope scaling's high_freq_factor is not above its low_freq_factor", where="config.json")
    # In float32, as llama.cpp's converter does it, but for the power: there it differs from processor to processor.
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    powers = np.array([rope.theta ** float(exponent) for exponent in exponents], dtype=np.float32)
    waves = np.float32(2 * math.pi) / (np.float32(1) / powers)
    blend = (np.float32(context) / waves - np.float32(low)) / np.float32(high - low)
    between = 1 / ((1 - blend) / np.float32(factor) + blend)
    return np.where(blend > 1, np.float32(1), np.where(blend < 0, np.float32(factor), between)).astype(np.float32)
