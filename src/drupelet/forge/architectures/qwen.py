"""Qwen2 (and 2.5) and Qwen3, dense. Neither has rows reordered: llama.cpp rotates their halves as they are."""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from drupelet.forge.architectures.config import DecoderConfig, Width
from drupelet.forge.architectures.port import Decoder, Shape, describe_head_width


class QwenConfig(DecoderConfig, frozen=True, kw_only=True):
    """A Qwen's config."""

    use_sliding_window: bool = False


class Qwen3Config(QwenConfig, frozen=True, kw_only=True):
    """A Qwen3's config."""

    head_dim: Width | None = 128
    attention_bias: bool = False


class Qwen2(Decoder[QwenConfig]):
    """Queries, keys and values have biases."""

    NAMES = ("Qwen2ForCausalLM",)
    ARCH = gguf.MODEL_ARCH.QWEN2
    CONFIG = QwenConfig

    def unsupported(self) -> Iterator[str]:
        """All, and what llama.cpp's graph of it lacks."""
        yield from super().unsupported()
        if self.config.use_sliding_window:
            yield "sliding-window attention in Qwen2"
        if self.config.query_width != self.config.hidden_size:
            yield "heads that are not as wide as the model together"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, with its biases."""
        shapes = super().layer()
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes[f"self_attn.{name}.bias"] = shapes[f"self_attn.{name}.weight"][:1]
        return shapes


class Qwen3(Decoder[Qwen3Config]):
    """Queries and keys are normed head by head."""

    NAMES = ("Qwen3ForCausalLM",)
    ARCH = gguf.MODEL_ARCH.QWEN3
    CONFIG = Qwen3Config

    def unsupported(self) -> Iterator[str]:
        """All, and what llama.cpp's graph of it lacks."""
        yield from super().unsupported()
        if self.config.use_sliding_window:
            yield "sliding-window attention in Qwen3"
        if self.config.attention_bias:
            yield "biases in attention"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, with the norms of queries and keys."""
        width = (self.config.head_width,)
        return super().layer() | {"self_attn.q_norm.weight": width, "self_attn.k_norm.weight": width}

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, and the width of a head."""
        super().describe(writer)
        describe_head_width(self.config, writer)
