"""Reading a SentencePiece model file: just the fields that GGUF needs, straight from its protobuf encoding.

SentencePiece's own library tells neither a piece's exact type nor the normalizer's settings, and its protobuf classes
need another dependency.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from drupelet.forge.errors import CheckpointBad
from drupelet.forge.protobuf import fields, signed
from drupelet.forge.tokenizers.port import PieceType

PIECES_MAX = 1 << 20
_MODEL_PIECES, _MODEL_TRAINER, _MODEL_NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_TRAINER_TYPE, _TRAINER_UNK, _TRAINER_BOS, _TRAINER_EOS, _TRAINER_PAD = 3, 40, 41, 42, 43
_NORMALIZER_DUMMY_PREFIX = 3
BPE = 2
"""The trainer's model type whose merges llama.cpp repeats; 1 is unigram."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True, slots=True, kw_only=True)
class SpmModel:
    """A tokenizer: its pieces by id, its special ids (-1 for none) and what it does to a text first."""

    pieces: tuple[Piece, ...]
    model_type: int
    unk: int
    bos: int
    eos: int
    pad: int
    add_dummy_prefix: bool


def parse_spm(data: bytes, *, where: str = "") -> SpmModel:
    """Return the model in `data`, or raise `CheckpointBad` if it is none."""
    try:
        return _parse(data)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise CheckpointBad("not a SentencePiece model, or cut short", where=where) from error


def _parse(data: bytes) -> SpmModel:
    pieces: list[Piece] = []
    trainer: dict[int, int] = {}
    normalizer: dict[int, int] = {}
    for number, value in fields(data):
        if number == _MODEL_PIECES and isinstance(value, bytes):
            pieces.append(_piece(value))
            if len(pieces) > PIECES_MAX:
                raise ValueError("too many pieces")
        elif number == _MODEL_TRAINER and isinstance(value, bytes):
            trainer = _numbers(value)
        elif number == _MODEL_NORMALIZER and isinstance(value, bytes):
            normalizer = _numbers(value)
    if not pieces:
        raise ValueError("no pieces")
    return SpmModel(
        pieces=tuple(pieces),
        model_type=trainer.get(_TRAINER_TYPE, 1),
        unk=signed(trainer.get(_TRAINER_UNK, 0)),
        bos=signed(trainer.get(_TRAINER_BOS, 1)),
        eos=signed(trainer.get(_TRAINER_EOS, 2)),
        pad=signed(trainer.get(_TRAINER_PAD, -1)),
        add_dummy_prefix=bool(normalizer.get(_NORMALIZER_DUMMY_PREFIX, 1)),
    )


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, PieceType.NORMAL
    for number, value in fields(data):
        if number == _PIECE_TEXT and isinstance(value, bytes):
            text = value
        elif number == _PIECE_SCORE and isinstance(value, float):
            score = value
        elif number == _PIECE_TYPE and isinstance(value, int):
            kind = PieceType(value)
    return Piece(text.decode("utf-8"), score, kind)


def _numbers(data: bytes) -> dict[int, int]:
    return {number: value for number, value in fields(data) if isinstance(value, int)}
