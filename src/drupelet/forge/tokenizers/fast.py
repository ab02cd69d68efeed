"""`tokenizer.json`: read without trust, and run by the `tokenizers` library it belongs to.

The library is never given the file. Some files make it end the whole process, in Rust, and there is nothing in Python
to catch. What the forge needs is checked here: a vocabulary of unique ids, merges of known pieces, bounded lists, steps
that are known; and the library is given a file made from just that. Its encoding is what the server's is compared
with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from drupelet.forge.checkpoint import TOKENIZER_BYTES_MAX, read_bounded
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.safetensors import parse_json
from drupelet.forge.tokenizers.port import TOKENS_MAX, Vocabulary
from drupelet.forge.tokenizers.special import Added

MERGES_MAX = 1 << 21
_UNWANTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastTokenizer:
    """Implements `Tokenizer`."""

    vocabulary: Vocabulary
    library: Library

    def encode(self, text: str) -> list[int]:
        """As the library splits it."""
        return list(self.library.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastFile:
    """What a `tokenizer.json` says, checked but for its steps, which whoever knows what kind it is checks."""

    path: Path
    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    added: list[Any]
    """As listed; see `special.added_tokens`."""
    unknown: str | None
    byte_fallback: bool
    fuse_unknown: bool
    ignore_merges: bool
    pre_tokenizer: Json | None
    normalizer: Json | None
    begins: str | None
    """The token that is put before every text, if one is."""
    ends: str | None

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

    def run(
        self, vocabulary: Vocabulary, added: Sequence[Added], *, normalizer: Json | None, pre_tokenizer: Json | None
    ) -> FastTokenizer:
        """Return the tokenizer at work, with these steps. Raises `CheckpointBad` for what the library refuses."""
        model = {
            "type": "BPE",
            "unk_token": self.unknown,
            "fuse_unk": self.fuse_unknown,
            "byte_fallback": self.byte_fallback,
            "ignore_merges": self.ignore_merges,
            "vocab": self.vocab,
            "merges": self.merges,
        }
        fields = {
            "version": "1.0",
            "added_tokens": [
                {"id": one.id, "content": one.content, "special": one.special, **one.options}
                for one in sorted(added, key=lambda one: one.id)
                if one.listed
            ],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "model": model | dict.fromkeys(_UNWANTED),
        }
        try:
            library = Library.from_str(json.dumps(fields))
        except Exception as error:  # the library raises nothing more exact
            raise CheckpointBad(
                f"the tokenizers library refuses it: {str(error)[:200]}", where=str(self.path)
            ) from error
        return FastTokenizer(vocabulary=vocabulary, library=library)


def read_fast(path: Path) -> FastFile:
    """Return what is in a `tokenizer.json`. Raises `CheckpointBad`, or `Unsupported` if it is not BPE."""
    where = str(path)
    fields = parse_json(read_bounded(path, TOKENIZER_BYTES_MAX), where=where)
    model = fields.get("model")
    if not isinstance(model, dict):
        raise CheckpointBad("it has no model", where=where)
    if model.get("type", "BPE") != "BPE":
        said = str(model.get("type"))[:40]
        raise Unsupported(f"a tokenizer of the kind {said!r}; only BPE is supported", where=where)
    for name in _UNWANTED:
        if model.get(name):
            raise Unsupported(f"a tokenizer with {name}", where=where, fix="llama.cpp knows none")
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
    unknown = model.get("unk_token")
    if unknown is not None and (not isinstance(unknown, str) or unknown not in vocab):
        raise CheckpointBad(f"its unknown token {unknown!r:.40} is not in its vocabulary", where=where)
    begins, ends = _around(_object(fields, "post_processor", where), where)
    return FastFile(
        path=path,
        vocab=vocab,
        merges=merges,
        added=added,
        unknown=unknown,
        byte_fallback=model.get("byte_fallback") is True,
        fuse_unknown=model.get("fuse_unk") is True,
        ignore_merges=model.get("ignore_merges") is True,
        pre_tokenizer=_object(fields, "pre_tokenizer", where),
        normalizer=_object(fields, "normalizer", where),
        begins=begins,
        ends=ends,
    )


def _object(fields: Json, name: str, where: str) -> Json | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise CheckpointBad(f"{name} is not an object", where=where)
    return value


def _around(processor: Json | None, where: str) -> tuple[str | None, str | None]:
    """Return the tokens that the post-processor puts before and after a text."""
    steps = [processor] if processor is not None else []
    if processor is not None and processor.get("type") == "Sequence":
        inner = processor.get("processors")
        if not isinstance(inner, list) or len(inner) > 16 or not all(isinstance(one, dict) for one in inner):
            raise CheckpointBad("the post-processor's steps are no list", where=where)
        steps = inner
    begins: str | None = None
    ends: str | None = None
    for step in steps:
        if step.get("type") == "ByteLevel":
            continue
        if step.get("type") != "TemplateProcessing":
            said = str(step.get("type"))[:40]
            raise Unsupported(
                f"a tokenizer that ends with {said!r}", where=where, fix="ByteLevel and templates are known"
            )
        single = step.get("single")
        parts = [_template_part(one) for one in single] if isinstance(single, list) else []
        if not 1 <= len(parts) <= 3 or parts.count("") != 1 or None in parts:
            raise Unsupported("a tokenizer that puts more than a token around a text", where=where)
        at = parts.index("")
        if at > 1 or len(parts) - at > 2:
            raise Unsupported("a tokenizer that puts more than a token around a text", where=where)
        begins = parts[0] if at else begins
        ends = parts[-1] if at < len(parts) - 1 else ends
    return begins, ends


def _template_part(value: object) -> str | None:
    """Return a special token's text, an empty text for the text itself, None for what is neither."""
    if isinstance(value, dict) and isinstance(value.get("Sequence"), dict):
        return ""
    inner = value.get("SpecialToken") if isinstance(value, dict) else None
    name = inner.get("id") if isinstance(inner, dict) else None
    return name if isinstance(name, str) and name else None


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
