"""Gemma 1, 2 and 3, text. Their norms multiply by one plus the weight, so that one is added to every norm's weights.

Gemma 2 and 3 norm after attention and feed-forward too, and let some layers see a window only: every other one, and
five of six. llama.cpp has both patterns, and the two scales of queries, built in: another one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import gguf

from drupelet.forge.architectures.config import DecoderConfig, Few, Positive, Size, Width, rope_of
from drupelet.forge.architectures.port import Change, Decoder, Shape, describe_head_width
from drupelet.forge.shape import ModelShape

FULL, WINDOWED = "full_attention", "sliding_attention"
_GELUS = ("gelu", "gelu_pytorch_tanh")


class GemmaConfig(DecoderConfig, frozen=True, kw_only=True):
    """A Gemma's config."""

    head_dim: Width | None = 256
    tie_word_embeddings: bool = True
    hidden_act: str = "gelu_pytorch_tanh"
    hidden_activation: str | None = None
    attention_bias: bool = False


class Gemma2Config(GemmaConfig, frozen=True, kw_only=True):
    """A Gemma 2's config."""

    attn_logit_softcapping: Positive | None = 50.0
    final_logit_softcapping: Positive | None = 30.0
    query_pre_attn_scalar: Positive = 256.0
    sliding_window: Size = 4096
    layer_types: tuple[str, ...] | None = None


class Gemma3Config(Gemma2Config, frozen=True, kw_only=True):
    """A Gemma 3's config."""

    attn_logit_softcapping: Positive | None = None
    final_logit_softcapping: Positive | None = None
    rope_theta: Positive = 1_000_000.0
    rope_local_base_freq: Positive = 10_000.0
    sliding_window_pattern: Size = 6


class Gemma(Decoder[GemmaConfig]):
    """Gemma 1."""

    NAMES = ("GemmaForCausalLM",)
    ARCH = gguf.MODEL_ARCH.GEMMA
    CONFIG = GemmaConfig
    ROPES: ClassVar[tuple[str, ...]] = ("default",)
    ACTIVATION = _GELUS
    SPACE_PREFIX = False

    def unsupported(self) -> Iterator[str]:
        """All, and what no Gemma has."""
        yield from super().unsupported()
        if self.config.attention_bias:
            yield "biases in attention"
        if self.config.hidden_activation not in (None, "gelu_pytorch_tanh"):
            yield f"the activation {str(self.config.hidden_activation)[:40]!r}"
        if not self.config.tie_word_embeddings:
            yield "an output matrix of its own"

    def change(self, source: str) -> Change:
        """One is added to every norm."""
        return Change(add=1.0) if source.endswith("norm.weight") else Change()

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, and the width of a head."""
        super().describe(writer)
        describe_head_width(self.config, writer)


class Gemma2(Gemma):
    """Gemma 2: two more norms a layer, capped logits, every other layer sees a window."""

    NAMES = ("Gemma2ForCausalLM",)
    ARCH = gguf.MODEL_ARCH.GEMMA2
    CONFIG = Gemma2Config
    PERIOD = 2
    """Every so many layers one sees everything."""
    LARGE = 46
    """Layers of the 27B model, whose queries llama.cpp scales by the hidden size over the heads."""
    config: Gemma2Config

    @property
    def shape(self) -> ModelShape:
        """Its sizes, with the window."""
        windowed = sum(kind == WINDOWED for kind in self.pattern())
        window = self.config.sliding_window if windowed else None
        return replace(super().shape, window=window, window_layers=windowed)

    def pattern(self) -> list[str]:
        """Return the kind of each layer, as llama.cpp has it."""
        layers = self.config.num_hidden_layers
        return [FULL if (layer + 1) % self.PERIOD == 0 else WINDOWED for layer in range(layers)]

    def unsupported(self) -> Iterator[str]:
        """All, and another pattern or scale than llama.cpp's."""
        yield from super().unsupported()
        config = self.config
        if config.layer_types is not None and list(config.layer_types) != self.pattern():
            yield "another pattern of windowed layers"
        large = config.num_hidden_layers == self.LARGE
        scale = config.hidden_size / config.num_attention_heads if large else config.head_width
        if config.query_pre_attn_scalar != scale:
            yield f"query_pre_attn_scalar {config.query_pre_attn_scalar:g} where llama.cpp scales by {scale:g}"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, with the norms around its feed-forward part."""
        norm = (self.config.hidden_size,)
        more = {"pre_feedforward_layernorm.weight": norm, "post_feedforward_layernorm.weight": norm}
        return super().layer() | more

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, the caps and the window."""
        super().describe(writer)
        if self.config.attn_logit_softcapping is not None:
            writer.add_attn_logit_softcapping(self.config.attn_logit_softcapping)
        if self.config.final_logit_softcapping is not None:
            writer.add_final_logit_softcapping(self.config.final_logit_softcapping)
        if self.shape.window is not None:
            writer.add_sliding_window(self.shape.window)


class Gemma3(Gemma2):
    """Gemma 3: queries and keys normed, five of six layers see a window and rotate by a base of their own."""

    NAMES = ("Gemma3ForCausalLM",)
    ARCH = gguf.MODEL_ARCH.GEMMA3
    CONFIG = Gemma3Config
    ROPES = ("default", "linear")
    PERIOD = 6
    LARGE = 62
    config: Gemma3Config

    def unsupported(self) -> Iterator[str]:
        """All, and what Gemma 3 no longer has."""
        yield from super().unsupported()
        if self.config.attn_logit_softcapping is not None:
            yield "capped attention in Gemma 3"
        if self.config.layer_types is None and self.config.sliding_window_pattern != self.PERIOD:
            yield "another pattern of windowed layers"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, with the norms of queries and keys."""
        width = (self.config.head_width,)
        return super().layer() | {"self_attn.q_norm.weight": width, "self_attn.k_norm.weight": width}

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, and the base of the windowed layers."""
        super().describe(writer)
        local = self.config.rope_local_base_freq
        if WINDOWED in (self.config.rope_parameters or {}):
            local = rope_of(self.config, layers=WINDOWED).theta
        writer.add_rope_freq_base_swa(local)


class Gemma3TextConfig(Gemma3Config, frozen=True, kw_only=True):
    """The text half of a Gemma 3 that sees; its published configs leave out what is as Hugging Face has it."""

    num_attention_heads: Few = 8
    num_key_value_heads: Few | None = 4
    max_position_embeddings: Size = 131_072
    vocab_size: Size = 262_208


class Gemma3Text(Gemma3):
    """The text half of a Gemma 3 that sees (4B and larger). Its eyes are left out."""

    NAMES = ("Gemma3ForConditionalGeneration",)
    CONFIG = Gemma3TextConfig
    NESTED = "text_config"

    def own_name(self, name: str) -> str | None:
        """Take the language model's tensors, by their old names and their new."""
        if name == "lm_head.weight":
            return name
        _, found, rest = name.partition("language_model.")
        if not found:
            return None
        return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
