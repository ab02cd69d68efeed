"""`tokenizer.json`: read without trust, and run by the `tokenizers` library it belongs to.

What the forge needs of it is checked here: a vocabulary of unique ids, merges of known pieces, bounded lists. Only then
is the library given the bytes, for its own encoding is what the server's is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from drupelet.forge.checkpoint import TOKENIZER_BYTES_MAX, read_bounded
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.safetensors import parse_json
from drupelet.forge.tokenizers.port import TOKENS_MAX, Vocabulary

MERGES_MAX = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True)
class FastTokenizer:
    """Implements `Tokenizer`; `vocabulary` is filled in by whoever knows what kind it is."""

    path: Path
    library: Library
    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    added: list[Any]
    """As listed; see `special.added_tokens`."""
    unknown: str | None
    byte_fallback: bool
    ignore_merges: bool
    pre_tokenizer: Mapping[str, Any] | None
    normalizer: Mapping[str, Any] | None
    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        """As the library splits it."""
        return list(self.library.encode(text, add_special_tokens=False).ids)

    def texts(self, size: int) -> dict[int, str]:
        """Return id -> text. Raises `CheckpointBad` for an id past the embedding's `size` rows, or used twice."""
        found: dict[int, str] = {}
        for text, token in self.vocab.items():
            if token >= size:
                what = f"the tokenizer has a token {token} and the embedding only {size} rows"
                raise CheckpointBad(what, where=str(self.path), fix="tokenizer and weights belong to different models")
            if token in found:
                raise CheckpointBad(f"two texts have the id {token}", where=str(self.path))
            found[token] = text
        return found

    @property
    def adds(self) -> tuple[bool, bool]:
        """Whether it puts a token before and one after every text, as its post-processor does."""
        plain, whole = self.encode("a"), list(self.library.encode("a").ids)
        if not plain or len(whole) == len(plain):
            return False, False
        return whole[0] != plain[0], whole[-1] != plain[-1]

    @property
    def prepends(self) -> bool:
        """Whether a text is given a space before its first word, as SentencePiece's dummy prefix does."""
        return any(
            step.get("type") == "Prepend" or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
            for step in (*_flat(self.normalizer, "normalizers"), *_flat(self.pre_tokenizer, "pretokenizers"))
        )

    def with_vocabulary(self, vocabulary: Vocabulary) -> FastTokenizer:
        """Return it with what GGUF holds of it."""
        return replace(self, vocabulary=vocabulary)


def read_fast(path: Path) -> FastTokenizer:
    """Return the tokenizer in a `tokenizer.json`. Raises `CheckpointBad`, or `Unsupported` if it is not BPE."""
    where = str(path)
    data = read_bounded(path, TOKENIZER_BYTES_MAX)
    fields = parse_json(data, where=where)
    model = fields.get("model")
    if not isinstance(model, dict):
        raise CheckpointBad("it has no model", where=where)
    if model.get("type", "BPE") != "BPE":
        said = str(model.get("type"))[:40]
        raise Unsupported(f"a tokenizer of the kind {said!r}; only BPE is supported", where=where)
    vocab, merges = _vocab(model, where), _merges(model, where)
    for left, right in merges:
        for piece in (left, right, left + right):
            if piece not in vocab:
                raise CheckpointBad(
                    f"the merge {left!r:.40} {right!r:.40} makes or needs an unknown piece", where=where
                )
    added = fields.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > TOKENS_MAX:
        raise CheckpointBad("added_tokens is no list", where=where)
    try:
        library = Library.from_buffer(data)
    except Exception as error:  # the library raises nothing more exact
        raise CheckpointBad(f"the tokenizers library refuses it: {str(error)[:200]}", where=where) from error
    unknown = model.get("unk_token")
    return FastTokenizer(
        path=path,
        library=library,
        vocab=vocab,
        merges=merges,
        added=added,
        unknown=unknown if isinstance(unknown, str) else None,
        byte_fallback=model.get("byte_fallback") is True,
        ignore_merges=model.get("ignore_merges") is True,
        pre_tokenizer=_object(fields, "pre_tokenizer", where),
        normalizer=_object(fields, "normalizer", where),
        vocabulary=Vocabulary(model="gpt2", pre="", pieces=(), types=()),
    )


def _object(fields: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any] | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise CheckpointBad(f"{name} is not an object", where=where)
    return value


def _flat(value: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Return the steps of a sequence, or the one step there is."""
    if value is None:
        return []
    inner = value.get(key) if value.get("type") == "Sequence" else None
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else [value]


def _vocab(model: Mapping[str, Any], where: str) -> dict[str, int]:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= TOKENS_MAX:
        raise CheckpointBad("its vocabulary is no table of tokens, or too large", where=where)
    for text, token in vocab.items():
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < TOKENS_MAX:
            raise CheckpointBad(f"token {text[:40]!r} has no id", where=where)
    return vocab


def _merges(model: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    merges = model.get("merges")
    if not isinstance(merges, list) or len(merges) > MERGES_MAX:
        raise CheckpointBad("its merges are no list, or too many", where=where)
    found = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise CheckpointBad(f"the merge {str(merge)[:80]!r} is not of two pieces", where=where)
        found.append((parts[0], parts[1]))
    return tuple(found)
