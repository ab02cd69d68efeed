"""The fields of `config.json` that decide what a decoder computes, and its rotary positions, old style and new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from drupelet.forge.errors import CheckpointBad

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Few = Annotated[int, Meta(ge=1, le=1024)]
Width = Annotated[int, Meta(ge=2, le=4096)]
Token = Annotated[int, Meta(ge=0, le=1 << 24)]
Positive = Annotated[float, Meta(gt=0, lt=1e12)]
Small = Annotated[float, Meta(gt=0, lt=1)]


class DecoderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What all architectures share; each has its own defaults, which are those of Hugging Face's own classes."""

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Few
    num_attention_heads: Few
    num_key_value_heads: Few | None = None
    head_dim: Width | None = None
    max_position_embeddings: Size
    rms_norm_eps: Small = 1e-6
    rope_theta: Positive = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    """Newer checkpoints write theta and scaling here, one set for each kind of layer if they differ."""
    vocab_size: Size
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    bos_token_id: Token | None = None
    eos_token_id: Token | tuple[Token, ...] | None = None
    pad_token_id: int | None = None
    quantization_config: dict[str, Any] | None = None

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; as many as of queries where the config is silent."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Numbers in one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_width(self) -> int:
        """Numbers in all heads of queries."""
        return self.num_attention_heads * self.head_width

    @property
    def key_width(self) -> int:
        """Numbers in all heads of keys, and of values."""
        return self.kv_heads * self.head_width

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer, the first the main one."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)


RopeKind = Literal["default", "linear", "llama3", "yarn", "longrope", "dynamic", "unknown"]
_KINDS: Mapping[str, RopeKind] = {
    "default": "default",
    "linear": "linear",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",
    "dynamic": "dynamic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions: the base, how they are stretched, and with which numbers."""

    theta: float
    kind: RopeKind
    said: str
    """The kind in the checkpoint's own word."""
    parameters: Mapping[str, Any]

    def number(self, name: str, default: float | None = None) -> float:
        """Return one of the numbers. Raises `CheckpointBad` if it is missing or no positive number."""
        value = self.parameters.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise CheckpointBad(f"rope scaling needs {name}, a positive number, not {value!r}", where="config.json")
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        """Return a list of `count` positive numbers, or raise `CheckpointBad`."""
        values = self.parameters.get(name)
        if not isinstance(values, list) or len(values) != count:
            raise CheckpointBad(f"rope scaling needs {name}, a list of {count} numbers", where="config.json")
        if not all(isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < 1e6 for one in values):
            raise CheckpointBad(f"{name} holds something that is no positive number", where="config.json")
        return [float(one) for one in values]


def rope_of(config: DecoderConfig, *, layers: str = "full_attention") -> Rope:
    """Return the rotary positions of one kind of layer, from whichever fields the checkpoint has them in."""
    parameters = config.rope_parameters or config.rope_scaling or {}
    inner = parameters.get(layers, parameters)
    if not isinstance(inner, dict):
        raise CheckpointBad("rope_parameters is malformed", where="config.json")
    said = str(inner.get("rope_type", inner.get("type", "default")) or "default").lower()
    theta = inner.get("rope_theta", config.rope_theta)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < 1e12:
        raise CheckpointBad(f"rope_theta is {theta!r}, not a positive number", where="config.json")
    return Rope(theta=float(theta), kind=_KINDS.get(said, "unknown"), said=said[:40], parameters=inner)
