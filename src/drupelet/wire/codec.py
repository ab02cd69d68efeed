"""Decoding at the door: size, encoding, depth, version and type, in that order, before anything looks inside.

BadInput (core)
|- Malformed         not JSON, not UTF-8, too deep, or a field of the wrong type or range
|- TooLarge          more bytes than the message may have
`- UnknownFormat     a format or version this release does not speak
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar, TypeVar

import msgspec

from drupelet.core.errors import BadInput


class Malformed(BadInput):
    """Not JSON, not UTF-8, too deep, or a field of the wrong type or range."""


class TooLarge(BadInput):
    """More bytes than the message may have."""


class UnknownFormat(BadInput):
    """A format or version this release does not speak."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message with a name and a version on the wire: `"format": "drupelet.manifest/1"`.

    A subclass sets `FORMAT`, `BYTES_MAX` and the default of `format`. Unknown fields are ignored, so that a newer peer
    may say more; a change of meaning takes a new version number.
    """

    FORMAT: ClassVar[str]
    BYTES_MAX: ClassVar[int]

    format: str


M = TypeVar("M", bound=Message)


def decode(kind: type[M], data: bytes, *, where: str = "") -> M:
    """Return the message in `data`, or raise `TooLarge`, `Malformed` or `UnknownFormat`."""
    if len(data) > kind.BYTES_MAX:
        raise TooLarge(f"{len(data)} bytes where at most {kind.BYTES_MAX} are allowed", where=where)
    _refuse_unknown_format(kind, data, where)
    return decode_as(kind, data, where=where)


def _refuse_unknown_format(kind: type[Message], data: bytes, where: str) -> None:
    head = decode_as(_Head, data, where=where, name=kind.FORMAT)
    if head.format != kind.FORMAT:
        said = head.format[:80]
        raise UnknownFormat(
            f"format is {said!r} where {kind.FORMAT!r} is understood",
            where=where,
            fix="update the older side",
        )


def format_of(data: bytes, *, bytes_max: int, where: str = "") -> str:
    """Return what format a message says it has, where several are read. Raises `TooLarge` or `Malformed`."""
    if len(data) > bytes_max:
        raise TooLarge(f"{len(data)} bytes where at most {bytes_max} are allowed", where=where)
    return decode_as(_Head, data, where=where, name="message").format


class _Head(msgspec.Struct, frozen=True):
    format: str


T = TypeVar("T")
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode_as(kind: type[T], data: bytes, *, where: str = "", name: str = "") -> T:
    """Return `data` decoded and validated as `kind`; for parts of messages. Size is the caller's to bound.

    `name` is what an error calls it, where the type's own name would mean nothing to a person.

    msgspec bounds recursion by the interpreter's limit and raises RecursionError past it, which means too deep.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise Malformed(f"not a valid {name or _name_of(kind)}: {error}", where=where) from error
    except msgspec.DecodeError as error:
        raise Malformed(f"not JSON: {error}", where=where) from error
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}", where=where) from error
    except RecursionError as error:
        raise Malformed("nested too deeply", where=where) from error


def _name_of(kind: object) -> str:
    return str(getattr(kind, "FORMAT", None) or getattr(kind, "__name__", "message"))


def encode(message: msgspec.Struct) -> bytes:
    """Return the compact JSON of a message."""
    return msgspec.json.encode(message)


def encode_canonical(message: msgspec.Struct) -> bytes:
    """Return the JSON of a message with sorted keys and an end of line: what is signed, hashed or read by people."""
    return msgspec.json.format(msgspec.json.encode(message, order="sorted"), indent=1) + b"\n"


def inflate(data: bytes, *, bytes_max: int, where: str = "") -> bytes:
    """Return zlib-compressed `data` unpacked, never holding more than `bytes_max` bytes."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, bytes_max + 1)
    except zlib.error as error:
        raise Malformed(f"not zlib data: {error}", where=where) from error
    if len(text) > bytes_max:
        raise TooLarge(f"more than {bytes_max} bytes once unpacked", where=where)
    if not unpacker.eof:
        raise Malformed("compressed data is cut short", where=where)
    return text
