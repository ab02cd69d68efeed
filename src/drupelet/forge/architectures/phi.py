"""Phi-2, and Phi-3, 3.5 and 4 (dense). Phi-3 keeps queries, keys and values in one matrix, gate and up in another;
llama.cpp takes both as they are. Its long contexts bring two lists of factors, which travel as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import gguf
import numpy as np
from numpy.typing import NDArray

from drupelet.forge.architectures.config import DecoderConfig, Rope, Size, Small, rope_of
from drupelet.forge.architectures.port import Decoder, Shape
from drupelet.forge.shape import ModelShape


class Phi3Config(DecoderConfig, frozen=True, kw_only=True):
    """A Phi-3's config."""

    rms_norm_eps: Small = 1e-5
    original_max_position_embeddings: Size | None = None
    partial_rotary_factor: float = 1.0
    sliding_window: int | None = None
    attention_bias: bool = False


class Phi2Config(DecoderConfig, frozen=True, kw_only=True):
    """A Phi-2's config."""

    layer_norm_eps: Small = 1e-5
    partial_rotary_factor: float = 0.5
    hidden_act: str = "gelu_new"
    qk_layernorm: bool = False


def _rotated(config: Phi3Config | Phi2Config, rope: Rope) -> int:
    """Return how many numbers of a head are rotated."""
    share = float(rope.number("partial_rotary_factor", config.partial_rotary_factor))
    return int(share * config.hidden_size) // config.num_attention_heads


class Phi3(Decoder[Phi3Config]):
    """See the module."""

    NAMES = ("Phi3ForCausalLM",)
    ARCH = gguf.MODEL_ARCH.PHI3
    CONFIG = Phi3Config
    ROPES = ("default", "longrope")

    @property
    def shape(self) -> ModelShape:
        """Its sizes. llama.cpp has no sliding window for Phi-3: the context ends where the window does."""
        window = self.config.sliding_window
        whole = super().shape
        return whole if window is None or window < 1 else replace(whole, context=min(whole.context, window))

    def unsupported(self) -> Iterator[str]:
        """All, and what llama.cpp's graph of it lacks."""
        yield from super().unsupported()
        if self.config.attention_bias:
            yield "biases in attention"
        if self.config.query_width != self.config.hidden_size:
            yield "heads that are not as wide as the model together"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors, fused."""
        config = self.config
        shapes = super().layer()
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            shapes.pop(f"{name}.weight")
        return shapes | {
            "self_attn.qkv_proj.weight": (config.query_width + 2 * config.key_width, config.hidden_size),
            "mlp.gate_up_proj.weight": (2 * config.intermediate_size, config.hidden_size),
        }

    @property
    def trained(self) -> int:
        """The context before it was stretched."""
        said = self.rope.parameters.get(
            "original_max_position_embeddings", self.config.original_max_position_embeddings
        )
        return int(said) if isinstance(said, int) and said > 1 else self.config.max_position_embeddings

    def extra(self) -> Mapping[str, NDArray[np.float32]]:
        """The factors of long and of short contexts."""
        if self.rope.kind != "longrope":
            return {}
        count = _rotated(self.config, self.rope) // 2
        return {
            f"rope_factors_{which}.weight": np.array(self.rope.numbers(f"{which}_factor", count), dtype=np.float32)
            for which in ("long", "short")
        }

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """All, and its long contexts. A window of 0 tells Phi-4 from its elders."""
        super().describe(writer)
        writer.add_rope_dimension_count(_rotated(self.config, self.rope))
        writer.add_rope_scaling_orig_ctx_len(self.trained)
        writer.add_sliding_window(self.config.sliding_window or 0)
        if self.rope.kind == "longrope":
            scale = self.config.max_position_embeddings / self.trained
            stretched = math.sqrt(1 + math.log(scale) / math.log(self.trained)) if scale > 1 else 1.0
            writer.add_rope_scaling_attn_factors(stretched)


class Phi2(Decoder[Phi2Config]):
    """Attention and feed-forward side by side, biases everywhere, half of each head rotated."""

    NAMES = ("PhiForCausalLM",)
    ARCH = gguf.MODEL_ARCH.PHI2
    CONFIG = Phi2Config
    ROPES = ("default",)
    ACTIVATION = ("gelu_new",)

    def unsupported(self) -> Iterator[str]:
        """All, and what llama.cpp's graph of it lacks."""
        yield from super().unsupported()
        if self.config.qk_layernorm:
            yield "norms of queries and keys"
        if self.config.kv_heads != self.config.num_attention_heads:
            yield "fewer key/value heads than heads"
        if self.config.tie_word_embeddings:
            yield "an output matrix that is the embedding"
        if self.config.intermediate_size != 4 * self.config.hidden_size:
            yield "a feed-forward part that is not four times as wide as the model"

    def layer(self) -> dict[str, Shape]:
        """One layer's tensors."""
        hidden, ffn = self.config.hidden_size, self.config.intermediate_size
        shapes: dict[str, Shape] = {"input_layernorm.weight": (hidden,), "input_layernorm.bias": (hidden,)}
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            shapes |= {f"self_attn.{name}.weight": (hidden, hidden), f"self_attn.{name}.bias": (hidden,)}
        shapes |= {"mlp.fc1.weight": (ffn, hidden), "mlp.fc1.bias": (ffn,)}
        return shapes | {"mlp.fc2.weight": (hidden, ffn), "mlp.fc2.bias": (hidden,)}

    def ending(self) -> dict[str, Shape]:
        """The last norm with its bias, and the output's bias."""
        hidden: Shape = (self.config.hidden_size,)
        norm: dict[str, Shape] = {"model.final_layernorm.weight": hidden, "model.final_layernorm.bias": hidden}
        return norm | {"lm_head.bias": (self.config.vocab_size,)}

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """What differs from the others: its norm, and how much of a head is rotated."""
        config = self.config
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.kv_heads)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_freq_base(rope_of(config).theta)
        writer.add_rope_dimension_count(_rotated(config, self.rope))
