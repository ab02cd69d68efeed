"""Writes HEF files of every header version with the published layout, and nothing that would run.

The description holds the header, a network group without layers, extensions and resources, encoded as protobuf does.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

MAGIC = 0x01484546
STRICT = 35
HAILO10H = 103


@dataclass(frozen=True, kw_only=True)
class HefSpec:
    """What to write. `resources` follow the weights, each with a checksum of its own."""

    version: int = 3
    chip: int = HAILO10H
    compiler: tuple[int, int, int] = (5, 1, 0)
    compiler_text: str = ""
    extensions: Sequence[int] = (STRICT,)
    weights: bytes = b"weights" * 100
    padding: int = 24
    resources: Sequence[bytes] = ()
    networks: int = 1
    description_checksum: bool = False


def varint(value: int) -> bytes:
    """Encode a number."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """Encode a field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def description_of(spec: HefSpec) -> bytes:
    """Return the description."""
    head = field(1, spec.chip) + field(2, 1_790_000_000)
    if spec.compiler_text:
        head += field(3, spec.compiler_text.encode())
    if any(spec.compiler):
        head += field(5, b"".join(field(index + 1, part) for index, part in enumerate(spec.compiler)))
    body = field(1, head) + field(2, field(9, b"no layers")) * spec.networks
    for extension in spec.extensions:
        body += field(5, field(1, extension) + field(2, b"SOME_EXTENSION"))
    offset = len(spec.weights)
    for resource in spec.resources:
        body += field(7, field(1, offset) + field(2, len(resource)) + field(3, b"r") + field(4, _xxh3(resource)))
        offset += len(resource)
    return body


def hef(spec: HefSpec | None = None) -> bytes:
    """Return a whole file."""
    spec = spec or HefSpec()
    description = description_of(spec)
    common = struct.pack(">III", MAGIC, spec.version, len(description))
    more = b"".join(spec.resources)
    if spec.version == 0:
        return common + struct.pack(">I16s", 0, hashlib.md5(description, usedforsecurity=False).digest()) + description
    if spec.version == 1:
        rest = description + spec.weights + more
        return common + struct.pack(">IQI", zlib.crc32(rest), len(rest) - len(description), 0) + rest
    if spec.version == 2:
        rest = description + spec.weights + more
        return common + struct.pack(">QQQQ", _xxh3(rest), len(rest) - len(description), 0, 0) + rest
    weights = bytes(spec.padding) + spec.weights
    rest = description + weights + more
    alone = _xxh3(description) if spec.description_checksum else 0
    numbers = (_xxh3(rest), len(weights), spec.padding, len(more), alone, 0)
    return common + struct.pack(">QQIQQQ", *numbers) + rest


def write_hef(path: Path, spec: HefSpec | None = None) -> Path:
    """Write a whole file and return its path."""
    path.write_bytes(hef(spec))
    return path


def _xxh3(data: bytes) -> int:
    return int(xxhash.xxh3_64_intdigest(data))
