"""Reading a SentencePiece model file: just the fields that GGUF needs, straight from its protobuf encoding.

SentencePiece's own library tells neither a piece's exact type nor the normalizer's settings, and its protobuf classes
need another dependency. The encoding is simple (protobuf.dev, "Encoding"): each field is a key, number << 3 | wire
type, then a varint, 8 bytes, a length and bytes, or 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from drupelet.forge.errors import CheckpointBad
from drupelet.forge.tokenizers.port import PieceType

PIECES_MAX = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
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
    for number, value in _fields(data):
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
        unk=_signed(trainer.get(_TRAINER_UNK, 0)),
        bos=_signed(trainer.get(_TRAINER_BOS, 1)),
        eos=_signed(trainer.get(_TRAINER_EOS, 2)),
        pad=_signed(trainer.get(_TRAINER_PAD, -1)),
        add_dummy_prefix=bool(normalizer.get(_NORMALIZER_DUMMY_PREFIX, 1)),
    )


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, PieceType.NORMAL
    for number, value in _fields(data):
        if number == _PIECE_TEXT and isinstance(value, bytes):
            text = value
        elif number == _PIECE_SCORE and isinstance(value, float):
            score = value
        elif number == _PIECE_TYPE and isinstance(value, int):
            kind = PieceType(value)
    return Piece(text.decode("utf-8"), score, kind)


def _numbers(data: bytes) -> dict[int, int]:
    return {number: value for number, value in _fields(data) if isinstance(value, int)}


def _signed(value: int) -> int:
    """Protobuf writes a negative int32 as a 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
        elif wire == _BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field ends after its message")
            yield number, data[position : position + length]
            position += length
        elif wire == _FIXED32:
            yield number, struct.unpack_from("<f", data, position)[0]
            position += 4
        elif wire == _FIXED64:
            yield number, struct.unpack_from("<d", data, position)[0]
            position += 8
        else:
            raise ValueError("unknown wire type")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number has no end")
