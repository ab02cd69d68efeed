"""A Llama in numpy, by Hugging Face's conventions: what a converted model must compute, written without llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.fakes.tiny_checkpoint import TinyLlama

Array = NDArray[np.float64]


def llama_logits(weights: Mapping[str, NDArray[np.float32]], shape: TinyLlama, tokens: Sequence[int]) -> Array:
    """Return logits (positions, vocabulary) for one sequence, in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    length = len(tokens)
    mask = np.triu(np.full((length, length), -np.inf), k=1)
    x = w["model.embed_tokens.weight"][list(tokens)]
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        h = _norm(x, w[f"{at}.input_layernorm.weight"])
        q = _rotate(_heads(h @ w[f"{at}.self_attn.q_proj.weight"].T, shape.heads))
        k = _rotate(_heads(h @ w[f"{at}.self_attn.k_proj.weight"].T, shape.kv_heads))
        v = _heads(h @ w[f"{at}.self_attn.v_proj.weight"].T, shape.kv_heads)
        k, v = (np.repeat(t, shape.heads // shape.kv_heads, axis=0) for t in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(shape.head_dim) + mask
        mixed = (_softmax(scores) @ v).transpose(1, 0, 2).reshape(length, -1)
        x = x + mixed @ w[f"{at}.self_attn.o_proj.weight"].T
        h = _norm(x, w[f"{at}.post_attention_layernorm.weight"])
        gate = h @ w[f"{at}.mlp.gate_proj.weight"].T
        up = h @ w[f"{at}.mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{at}.mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    result: Array = _norm(x, w["model.norm.weight"]) @ head.T
    return result


def _norm(x: Array, weight: Array) -> Array:
    result: Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    return result


def _heads(x: Array, count: int) -> Array:
    return x.reshape(x.shape[0], count, -1).transpose(1, 0, 2)


def _rotate(x: Array) -> Array:
    """Rotary positions, the second half of a head paired with the first."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * 10000.0 ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result
