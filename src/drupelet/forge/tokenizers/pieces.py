"""SentencePiece tokenizers: `tokenizer.model`, or a `tokenizer.json` that was made from one.

Chat markers must become the very token ids that training used, or a fluent answer goes to the wrong question. So the
vocabulary keeps the tokenizer's order, and the evaluation compares the server's tokens with the library's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from drupelet.forge.checkpoint import TOKENIZER_BYTES_MAX, Checkpoint, read_bounded
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.tokenizers.fast import FastFile, FastTokenizer, read_fast
from drupelet.forge.tokenizers.port import SCORE_ADDED, SCORE_UNUSED, PieceType, Vocabulary
from drupelet.forge.tokenizers.pre import known_spaces
from drupelet.forge.tokenizers.special import (
    Added,
    added_tokens,
    chat_template,
    flag,
    hold_together,
    put_around,
    special_tokens,
)
from drupelet.forge.tokenizers.spm import BPE, SpmModel, parse_spm

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceTokenizer:
    """Implements `Tokenizer` with SentencePiece's own library."""

    vocabulary: Vocabulary
    processor: sentencepiece.SentencePieceProcessor
    markers: Mapping[str, int]
    """Text -> id of what is matched whole."""
    cut: re.Pattern[str]
    """Matches any marker, the longest first."""

    def encode(self, text: str) -> list[int]:
        """Cut at the markers, and let SentencePiece split what lies between."""
        found: list[int] = []
        for part in self.cut.split(text):
            if part in self.markers:
                found.append(self.markers[part])
            elif part:
                found.extend(int(token) for token in self.processor.EncodeAsIds(part))
        return found


def read_pieces(checkpoint: Checkpoint, path: Path) -> SentencePieceTokenizer:
    """Return the tokenizer in `tokenizer.model`, padded to the size of the embedding."""
    where = str(path)
    model = _model(path)
    listed: list[Any] = []
    if (checkpoint.folder / "tokenizer.json") in checkpoint.files:
        fast = read_fast(checkpoint.folder / "tokenizer.json")
        listed = fast.added
    added = added_tokens(checkpoint, listed)
    pieces, scores, types = _padded(
        [piece.text for piece in model.pieces],
        [piece.score for piece in model.pieces],
        [piece.type for piece in model.pieces],
        checkpoint.shape.vocab,
        where,
    )
    known = {token: piece.text for token, piece in enumerate(model.pieces) if piece.type is not PieceType.UNKNOWN}
    hold_together(added, known, where=str(checkpoint.folder))
    _overlay(added, pieces, scores, types)
    settings = checkpoint.tokenizer_config
    own = {"bos": model.bos, "eos": model.eos, "unk": model.unk, "pad": model.pad}
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.Load(where)
    except (RuntimeError, OSError) as error:
        raise CheckpointBad("not a SentencePiece model", where=where) from error
    vocabulary = Vocabulary(
        model="llama",
        pre="default",
        pieces=tuple(pieces),
        scores=tuple(scores),
        types=tuple(types),
        special=special_tokens(checkpoint, pieces, named={one.content: one.id for one in added if listed}, own=own),
        add_bos=flag(settings, "add_bos_token", default=True, where=where),
        add_eos=flag(settings, "add_eos_token", default=False, where=where),
        add_space_prefix=_space_prefix(checkpoint, default=model.add_dummy_prefix),
        chat_template=chat_template(checkpoint),
    )
    markers = {
        piece: token
        for token, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)
    }
    # A pattern without alternatives would match everywhere.
    longest = "|".join(map(re.escape, sorted(markers, key=len, reverse=True))) or r"(?!)"
    cut = re.compile(f"({longest})")
    return SentencePieceTokenizer(vocabulary=vocabulary, processor=processor, markers=markers, cut=cut)


def read_converted(checkpoint: Checkpoint, fast: FastFile) -> FastTokenizer:
    """Return a SentencePiece tokenizer that only `tokenizer.json` has: merges take the place of scores.

    SentencePiece merges the pair with the best score first, `tokenizer.json` the one that comes first in its list: so a
    token's score is the place of the merge that makes it, counted down.
    """
    where = str(fast.path)
    size = checkpoint.shape.vocab
    known = fast.texts(size)
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(fast.merges):
        rank.setdefault(left + right, place)
    pieces = [known.get(token, f"[PAD{token}]") for token in range(size)]
    scores = [-float(rank.get(piece, len(rank))) for piece in pieces]
    types = [PieceType.NORMAL if token in known else PieceType.UNUSED for token in range(size)]
    bytes_known = 0
    for token, piece in enumerate(pieces):
        if _BYTE.fullmatch(piece):
            types[token] = PieceType.BYTE
            bytes_known += 1
        elif piece == fast.unknown:
            types[token] = PieceType.UNKNOWN
    if bytes_known != 256:
        fix = "train the tokenizer with byte_fallback=True"
        raise Unsupported("the tokenizer has no byte tokens, without which llama.cpp fails", where=where, fix=fix)
    added = added_tokens(checkpoint, fast.added)
    hold_together(added, known, where=str(checkpoint.folder))
    _overlay(added, pieces, scores, types)
    prepends, normalizer = known_spaces(fast.pre_tokenizer, fast.normalizer, where=where)
    named = {one.content: one.id for one in added}
    special = special_tokens(checkpoint, pieces, named=named, own={})
    begin, end = put_around(special, named, begins=fast.begins, ends=fast.ends, where=where)
    vocabulary = Vocabulary(
        model="llama",
        pre="default",
        pieces=tuple(pieces),
        scores=tuple(scores),
        types=tuple(types),
        special=special,
        add_bos=begin,
        add_eos=end,
        add_space_prefix=prepends,
        chat_template=chat_template(checkpoint),
    )
    return fast.run(vocabulary, added, normalizer=normalizer, pre_tokenizer=None)


def _model(path: Path) -> SpmModel:
    where = str(path)
    model = parse_spm(read_bounded(path, TOKENIZER_BYTES_MAX), where=where)
    if model.model_type != BPE:
        fix = "only SentencePiece models of the kind BPE are supported"
        raise Unsupported("llama.cpp would split texts in another way than this tokenizer", where=where, fix=fix)
    if not any(piece.type is PieceType.BYTE for piece in model.pieces):
        fix = "train the tokenizer with byte_fallback=True"
        raise Unsupported("the tokenizer has no byte tokens, without which llama.cpp fails", where=where, fix=fix)
    return model


def _space_prefix(checkpoint: Checkpoint, *, default: bool) -> bool:
    known = checkpoint.model.SPACE_PREFIX if checkpoint.model is not None else None
    if known is not None:
        return known
    return flag(checkpoint.tokenizer_config, "add_prefix_space", default=default, where=str(checkpoint.folder))


def _padded(
    pieces: list[str], scores: list[float], types: list[PieceType], size: int, where: str
) -> tuple[list[str], list[float], list[PieceType]]:
    known = len(pieces)
    if known > size:
        what = f"the tokenizer has {known} tokens and the embedding only {size} rows"
        raise CheckpointBad(what, where=where, fix="tokenizer and weights belong to different models")
    return (
        pieces + [f"[PAD{token}]" for token in range(known, size)],
        scores + [SCORE_UNUSED] * (size - known),
        types + [PieceType.UNUSED] * (size - known),
    )


def _overlay(
    added: list[Added],
    pieces: list[str],
    scores: list[float],
    types: list[PieceType],
) -> None:
    """Give added tokens their text and type, whether the learned vocabulary knew them or not."""
    for one in added:
        if types[one.id] is PieceType.BYTE:
            continue
        pieces[one.id], scores[one.id], types[one.id] = one.piece, SCORE_ADDED, one.type
