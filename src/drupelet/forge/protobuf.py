"""Reading the few fields one needs of a protobuf message, straight from its encoding, without a schema's classes.

The encoding is simple (protobuf.dev, "Encoding"): each field is a key, number << 3 | wire type, then a varint, 8 bytes,
a length and bytes, or 4 bytes. Given a `memoryview`, nested messages are views too: nothing is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | float | bytes | memoryview


def fields(data: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field. Raises `ValueError`, `IndexError`, `struct.error` for what is none."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, value
        elif wire == BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field ends after its message")
            yield number, data[position : position + length]
            position += length
        elif wire == FIXED32:
            yield number, struct.unpack_from("<f", data, position)[0]
            position += 4
        elif wire == FIXED64:
            yield number, struct.unpack_from("<d", data, position)[0]
            position += 8
        else:
            raise ValueError("unknown wire type")


def signed(value: int) -> int:
    """Return a negative int32, which protobuf writes as a 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number has no end")
