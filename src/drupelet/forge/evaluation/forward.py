"""The checkpoint computed a second way: a plain forward pass in numpy, straight from its safetensors.

Why: every variant is compared with the f16 reference, and the reference comes out of the same converter. A converter
that forgets to reorder a matrix, takes another rope base or swaps two layers makes all files wrong alike, and nothing
that compares them with each other can see it. So the reference is compared with this, which shares no code with the
converter but the reading of tensors and config: other names, other order of rows, other arithmetic.

What it computes is Hugging Face's definition: RMS norm, rotary positions over the halves of a head, grouped attention,
a gated feed-forward part; with the biases, the norms of queries and keys, the windows and the caps that a family has.
Weights are read layer by layer, one matrix at a time, and a few sequences go through all of them together; a 1B model
takes 2 TFLOP for a thousand positions, so a few hundred positions are enough and affordable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupelet.forge.architectures.config import DecoderConfig, Rope, rope_of
from drupelet.forge.checkpoint import Checkpoint

Array = NDArray[np.float32]
ARCHITECTURES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM",
    "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
)  # fmt: skip
"""What is computed here; the reference of another is not judged against its checkpoint, and the report says so."""
ROPES = ("default", "linear", "llama3")
POSITIONS_MAX = 256
"""Over all sequences: enough for a wrong rope base to show, which the first few positions cannot."""
_GELU_TANH = math.sqrt(2 / math.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """In what a family's layers differ from a Llama's."""

    embedding_scale: float = 1.0
    norm_add: float = 0.0
    gelu: bool = False
    attention_cap: float | None = None
    logit_cap: float | None = None
    query_scale: float
    rotated: int
    """Numbers of a head that are rotated."""
    rope: Rope
    window: int | None = None
    window_rope: Rope | None = None
    windowed: frozenset[int] = frozenset()


def why_not(checkpoint: Checkpoint) -> str | None:
    """Return why `forward` cannot compute this checkpoint, or None if it can."""
    if checkpoint.architecture not in ARCHITECTURES or checkpoint.model is None:
        return f"no second computation of {checkpoint.architecture} is built in"
    if checkpoint.model.rope.kind not in ROPES:
        return f"rope scaling of type {checkpoint.model.rope.said} is not computed here"
    return None


def choose(sequences: Sequence[Sequence[int]], *, positions_max: int = POSITIONS_MAX) -> list[int]:
    """Return the indexes of the sequences to compute, in order: the longest, then others while there is room."""
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    chosen: list[int] = []
    left = positions_max
    for index in order:
        if len(sequences[index]) <= left or not chosen:
            chosen.append(index)
            left -= len(sequences[index])
    return sorted(chosen)


def forward(
    checkpoint: Checkpoint, sequences: Sequence[Sequence[int]], *, progress: Callable[[str], None] = lambda _doing: None
) -> list[Array]:
    """Return the logits (positions, vocabulary) of each sequence. The checkpoint must be one without a `why_not`."""
    spans, start = [], 0
    for sequence in sequences:
        spans.append((start, start + len(sequence)))
        start += len(sequence)
    tokens = np.array([token for sequence in sequences for token in sequence], dtype=np.int64)
    run = _Run(checkpoint, _family(checkpoint), spans)
    state = run.rows("model.embed_tokens.weight", tokens) * np.float32(run.family.embedding_scale)
    layers = run.config.num_hidden_layers
    for layer in range(layers):
        progress(f"computing layer {layer + 1} of {layers} of the checkpoint")
        state = run.layer(state, layer)
    state = run.norm(state, "model.norm")
    logits = np.concatenate([state @ rows.T for rows in run.head().rows()], axis=1)
    cap = run.family.logit_cap
    logits = logits if cap is None else np.float32(cap) * np.tanh(logits / np.float32(cap))
    return [logits[begin:stop] for begin, stop in spans]


def _family(checkpoint: Checkpoint) -> _Family:
    config: Any = checkpoint.known().config
    name, width = checkpoint.architecture, config.head_width
    plain = _Family(query_scale=width**-0.5, rotated=width, rope=rope_of(config))
    if name == "Phi3ForCausalLM":
        share = plain.rope.number("partial_rotary_factor", config.partial_rotary_factor)
        window = config.sliding_window
        return _Family(
            query_scale=plain.query_scale,
            rotated=int(width * share),
            rope=plain.rope,
            window=window,
            window_rope=plain.rope,
            windowed=frozenset(range(config.num_hidden_layers)) if window else frozenset(),
        )
    if not name.startswith("Gemma"):
        return plain
    first, third = name == "GemmaForCausalLM", name == "Gemma3ForCausalLM"
    period = 6 if third else 2
    windowed = () if first else (one for one in range(config.num_hidden_layers) if (one + 1) % period)
    return _Family(
        embedding_scale=math.sqrt(config.hidden_size),
        norm_add=1.0,
        gelu=True,
        attention_cap=None if first else config.attn_logit_softcapping,
        logit_cap=None if first else config.final_logit_softcapping,
        query_scale=plain.query_scale if first else config.query_pre_attn_scalar**-0.5,
        rotated=width,
        rope=plain.rope,
        window=None if first else config.sliding_window,
        window_rope=_local_rope(config) if third else plain.rope,
        windowed=frozenset(windowed),
    )


def _local_rope(config: Any) -> Rope:
    """Return the rotary positions of Gemma 3's windowed layers."""
    if "sliding_attention" in (config.rope_parameters or {}):
        return rope_of(config, layers="sliding_attention")
    return Rope(theta=config.rope_local_base_freq, kind="default", said="default", parameters={})


class _Run:
    """One pass over some sequences, which lie behind one another in `spans`."""

    def __init__(self, checkpoint: Checkpoint, family: _Family, spans: Sequence[tuple[int, int]]) -> None:
        self.config: DecoderConfig = checkpoint.known().config
        self.family = family
        self._tensors, self._spans = checkpoint.tensors, spans
        self._positions = np.concatenate([np.arange(stop - begin) for begin, stop in spans])

    def head(self) -> Any:
        """Return the output matrix: its own tensor, or the embedding."""
        return self._tensors.get("lm_head.weight") or self._tensors["model.embed_tokens.weight"]

    def rows(self, name: str, tokens: NDArray[np.int64]) -> Array:
        """Return the rows of a matrix that `tokens` name, without holding the rest."""
        found = np.empty((tokens.size, self._tensors[name].shape[1]), dtype=np.float32)
        first = 0
        for rows in self._tensors[name].rows():
            here = (tokens >= first) & (tokens < first + len(rows))
            found[here] = rows[tokens[here] - first]
            first += len(rows)
        return found

    def norm(self, state: Array, name: str) -> Array:
        """RMS norm over the last axis."""
        weight = self._tensors[f"{name}.weight"].whole() + np.float32(self.family.norm_add)
        mean_square = np.mean(np.square(state, dtype=np.float64), axis=-1, keepdims=True)
        scaled: Array = (state / np.sqrt(mean_square + self.config.rms_norm_eps)).astype(np.float32)
        return scaled * weight

    def layer(self, state: Array, layer: int) -> Array:
        """One layer: attention, then the feed-forward part, each normed before and, in some families, after."""
        at = f"model.layers.{layer}"
        after = f"{at}.pre_feedforward_layernorm.weight" in self._tensors
        mixed = self._attention(self.norm(state, f"{at}.input_layernorm"), layer)
        state = state + (self.norm(mixed, f"{at}.post_attention_layernorm") if after else mixed)
        before = "pre_feedforward_layernorm" if after else "post_attention_layernorm"
        fed = self._feed_forward(self.norm(state, f"{at}.{before}"), f"{at}.mlp")
        return state + (self.norm(fed, f"{at}.post_feedforward_layernorm") if after else fed)

    def _linear(self, state: Array, name: str) -> Array:
        made: Array = state @ self._tensors[f"{name}.weight"].whole().T
        bias = self._tensors.get(f"{name}.bias")
        return made if bias is None else made + bias.whole()

    def _feed_forward(self, state: Array, at: str) -> Array:
        if f"{at}.gate_up_proj.weight" in self._tensors:
            gate, up = np.split(self._linear(state, f"{at}.gate_up_proj"), 2, axis=1)
        else:
            gate, up = self._linear(state, f"{at}.gate_proj"), self._linear(state, f"{at}.up_proj")
        active = _gelu(gate) if self.family.gelu else gate / (1 + np.exp(-np.clip(gate, -80, 80)))
        return self._linear(active * up, f"{at}.down_proj")

    def _attention(self, state: Array, layer: int) -> Array:
        config, family, at = self.config, self.family, f"model.layers.{layer}.self_attn"
        count, width, key_width = len(state), config.head_width, config.key_width
        if f"{at}.qkv_proj.weight" in self._tensors:
            cuts = [config.query_width, config.query_width + key_width]
            flat = np.split(self._linear(state, f"{at}.qkv_proj"), cuts, axis=1)
        else:
            flat = [self._linear(state, f"{at}.{name}_proj") for name in "qkv"]
        queries, keys, values = (one.reshape(count, -1, width) for one in flat)
        if f"{at}.q_norm.weight" in self._tensors:
            queries, keys = self.norm(queries, f"{at}.q_norm"), self.norm(keys, f"{at}.k_norm")
        windowed = layer in family.windowed
        rope = family.window_rope if windowed and family.window_rope is not None else family.rope
        turn = _turns(rope, family.rotated, self._positions)
        queries, keys = _turned(queries, turn), _turned(keys, turn)
        out = np.empty_like(queries)
        for begin, stop in self._spans:
            part = slice(begin, stop)
            window = family.window if windowed else None
            out[part] = _mix(queries[part], keys[part], values[part], family, window=window)
        return self._linear(out.reshape(count, -1), f"{at}.o_proj")


def _mix(queries: Array, keys: Array, values: Array, family: _Family, *, window: int | None) -> Array:
    """Return each position's mixture of the values it may see, (positions, heads, width)."""
    shared = queries.shape[1] // keys.shape[1]
    q = queries.transpose(1, 0, 2)
    k, v = np.repeat(keys, shared, axis=1).transpose(1, 2, 0), np.repeat(values, shared, axis=1).transpose(1, 0, 2)
    scores = q @ k * np.float32(family.query_scale)
    if family.attention_cap is not None:
        scores = np.float32(family.attention_cap) * np.tanh(scores / np.float32(family.attention_cap))
    seen = np.tri(len(queries), dtype=bool)
    if window is not None:
        seen &= ~np.tri(len(queries), k=-window, dtype=bool)
    scores = np.where(seen, scores, np.float32(-np.inf))
    scores = np.exp(scores - scores.max(axis=2, keepdims=True))
    mixed: Array = (scores / scores.sum(axis=2, keepdims=True) @ v).transpose(1, 0, 2)
    return mixed


def _turns(rope: Rope, rotated: int, positions: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return cosine and sine of each position's angles, (positions, half of what is rotated)."""
    half = rotated // 2
    frequencies = rope.theta ** (-np.arange(half) / half)
    if rope.kind == "linear":
        frequencies = frequencies / rope.number("factor")
    elif rope.kind == "llama3":
        frequencies = _llama3(frequencies, rope)
    angles = np.outer(positions, frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _llama3(frequencies: NDArray[np.float64], rope: Rope) -> NDArray[np.float64]:
    """Slow down the long waves, keep the short ones, blend between (Llama 3.1)."""
    context = rope.number("original_max_position_embeddings", 8192)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    turns = context * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    result: NDArray[np.float64] = frequencies * (kept + (1 - kept) / rope.number("factor", 8.0))
    return result


def _turned(heads: Array, turn: tuple[Array, Array]) -> Array:
    """Rotate (positions, heads, width): number i with number i + half; what lies beyond the rotated part stays."""
    cosine, sine = turn[0][:, None, :], turn[1][:, None, :]
    half = cosine.shape[2]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], axis=2)


def _gelu(value: Array) -> Array:
    inner = np.float32(_GELU_TANH) * (value + np.float32(0.044715) * value**3)
    active: Array = value * (1 + np.tanh(inner)) / 2
    return active
