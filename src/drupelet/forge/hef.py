"""Hailo's compiled models (HEF): imported, never made here, and held to their published layout.

The layout is that of HailoRT's open source (`hef_internal.hpp`, `hef.cpp`, `hef.proto`, version 5.2.0). Big endian: the
magic, the header's version, the size of the description; then, by version,

    0   4 reserved, MD5 of the rest                                            32 bytes in all
    1   CRC-32 of the rest, size of the weights, 4 reserved                    28
    2   XXH3-64 of the rest, size of the weights, 16 reserved                  44
    3   XXH3-64, size of the weights with padding, size of the padding,
        size of what follows, XXH3-64 of the description alone or 0, 8 reserved    56

The description is a protobuf message. Of it this reads what decides where the file runs: the chip it was compiled for,
the compiler's version, the extensions that a runtime must know, and the resources that follow with checksums of their
own. One extension, strict versioning, says that only a HailoRT of the compiler's own major and minor version may load
it. Of driver and firmware the file says nothing else: a recipe has to.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash

from drupelet.forge.errors import ModelFileBad
from drupelet.forge.protobuf import Value, fields

MAGIC = 0x01484546
"""`\\x01HEF`."""
DESCRIPTION_BYTES_MAX = 1 << 30
RESOURCES_MAX = 10_000
EXTENSIONS_MAX = 1_000
_COMMON = struct.Struct(">III")
_STRICT_VERSIONING = 35
_PIECE = 4 << 20

CHIPS: Mapping[int, tuple[str, ...]] = {
    0: ("hailo8",),
    1: ("hailo8",),
    2: ("hailo8",),
    3: ("hailo8l", "hailo8"),
    4: ("hailo15m", "hailo15h", "hailo10h"),
    6: ("hailo15l",),
    103: ("hailo15h", "hailo10h"),
    108: ("hailo12l",),
}
"""Number of the chip it was compiled for -> chips that HailoRT runs it on."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header of any version comes to. Sizes in bytes; `begin` is where the description does."""

    version: int
    begin: int
    description: int
    rest: int
    """Everything after the description."""
    resources_at: int
    check: Callable[[memoryview], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class HefFile:
    """A HEF whose layout, sizes and checksums agree."""

    path: Path
    header_version: int
    size_bytes: int
    chips: tuple[str, ...]
    """What it runs on; one of them is enough."""
    compiler: str
    """Version of Hailo's dataflow compiler, such as `5.1.0`."""
    strict: bool
    """Whether the runtime's first two numbers must be the compiler's."""
    networks: int


def read_hef(path: Path) -> HefFile:
    """Return what a file says, all of it proved. Raises `ModelFileBad` saying what is wrong."""
    where = str(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < _COMMON.size:
                raise ModelFileBad("too short for a HEF", where=where)
            # Closed when nothing looks at it any more: an error on its way up still does.
            return _read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), path)
    except OSError as error:
        raise ModelFileBad(f"cannot be read: {error.strerror}", where=where) from error


def _read(data: memoryview, path: Path) -> HefFile:
    where = str(path)
    header = _header(data, where)
    if header.begin + header.description + header.rest != len(data):
        promised = header.begin + header.description + header.rest
        what = f"its header promises {promised} bytes and there are {len(data)}"
        raise ModelFileBad(what, where=where, fix="fetch it again")
    if not header.check(data):
        raise ModelFileBad("its checksum is not that of its bytes", where=where, fix="fetch it again")
    try:
        found = _Description.of(data[header.begin : header.begin + header.description])
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise ModelFileBad(f"its description is none: {error}", where=where) from error
    for resource in found.resources:
        _check_resource(resource, data, header, where)
    chips = CHIPS.get(found.chip)
    if chips is None:
        fix = "use a newer drupelet, or compile it for a chip that HailoRT lists"
        raise ModelFileBad(f"it is compiled for chip number {found.chip}, which is not known", where=where, fix=fix)
    if not found.networks:
        raise ModelFileBad("there is no network in it", where=where)
    return HefFile(
        path=path,
        header_version=header.version,
        size_bytes=len(data),
        chips=chips,
        compiler=found.compiler(where),
        strict=_STRICT_VERSIONING in found.extensions,
        networks=found.networks,
    )


def _header(data: memoryview, where: str) -> _Header:
    magic, version, description = _COMMON.unpack_from(data)
    if magic != MAGIC:
        raise ModelFileBad("not a HEF: it does not begin as one", where=where)
    reader = _HEADERS.get(version)
    if reader is None:
        fix = "use a newer drupelet, or Hailo's own tools to see what it is"
        raise ModelFileBad(f"its header has the version {version}; 0 to 3 are known", where=where, fix=fix)
    if not 0 < description <= DESCRIPTION_BYTES_MAX:
        raise ModelFileBad(f"its description has {description} bytes", where=where)
    try:
        return reader(data, description)
    except struct.error as error:
        raise ModelFileBad("it ends within its header", where=where, fix="fetch it again") from error


def _v0(data: memoryview, description: int) -> _Header:
    _, digest = struct.unpack_from(">I16s", data, _COMMON.size)
    begin = _COMMON.size + 20

    def check(whole: memoryview) -> bool:
        return bool(hashlib.md5(whole[begin:], usedforsecurity=False).digest() == digest)

    return _Header(0, begin, description, 0, begin + description, check)


def _v1(data: memoryview, description: int) -> _Header:
    crc, weights, _ = struct.unpack_from(">IQI", data, _COMMON.size)
    begin = _COMMON.size + 16

    def check(whole: memoryview) -> bool:
        found = 0
        for at in range(begin, len(whole), _PIECE):
            found = zlib.crc32(whole[at : at + _PIECE], found)
        return bool(found == crc)

    return _Header(1, begin, description, weights, begin + description, check)


def _v2(data: memoryview, description: int) -> _Header:
    digest, weights, _, _ = struct.unpack_from(">QQQQ", data, _COMMON.size)
    begin = _COMMON.size + 32
    return _Header(2, begin, description, weights, begin + description, lambda whole: _xxh3(whole[begin:]) == digest)


def _v3(data: memoryview, description: int) -> _Header:
    digest, weights, padding, more, of_description, _ = struct.unpack_from(">QQIQQQ", data, _COMMON.size)
    begin = _COMMON.size + 44
    end = begin + description

    def check(whole: memoryview) -> bool:
        if padding > weights:
            return False
        # HailoRT looks at one of the two; where the description has its own, the chip checks the weights as it loads.
        return bool(_xxh3(whole[begin:end]) == of_description if of_description else _xxh3(whole[begin:]) == digest)

    return _Header(3, begin, description, weights + more, end + padding, check)


_HEADERS: Mapping[int, Callable[[memoryview, int], _Header]] = {0: _v0, 1: _v1, 2: _v2, 3: _v3}


def _xxh3(data: memoryview) -> int:
    hashing = xxhash.xxh3_64()
    for at in range(0, len(data), _PIECE):
        hashing.update(data[at : at + _PIECE])
    return int(hashing.intdigest())


@dataclass(frozen=True, slots=True)
class _Resource:
    offset: int
    size: int
    digest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """The fields of `ProtoHEFHef` that are read."""

    chip: int
    version: tuple[int, int, int]
    version_text: str
    extensions: frozenset[int]
    resources: tuple[_Resource, ...]
    networks: int

    @classmethod
    def of(cls, data: memoryview) -> _Description:
        head: Mapping[int, Value] = {}
        extensions: set[int] = set()
        resources: list[_Resource] = []
        networks = 0
        for number, value in fields(data):
            if number == 1 and isinstance(value, memoryview):
                head = dict(fields(value))
            elif number == 2:
                networks += 1
            elif number == 5 and isinstance(value, memoryview):
                extensions.add(_number(dict(fields(value)), 1))
            elif number == 7 and isinstance(value, memoryview):
                inner = dict(fields(value))
                resources.append(_Resource(_number(inner, 1), _number(inner, 2), _number(inner, 4)))
            if len(resources) > RESOURCES_MAX or len(extensions) > EXTENSIONS_MAX:
                raise ValueError("more extensions or resources than any has")
        version = head.get(5)
        parts = dict(fields(version)) if isinstance(version, memoryview) else {}
        text = head.get(3)
        return cls(
            chip=_number(head, 1),
            version=(_number(parts, 1), _number(parts, 2), _number(parts, 3)),
            version_text=bytes(text).decode("utf-8")[:40] if isinstance(text, memoryview) else "",
            extensions=frozenset(extensions),
            resources=tuple(resources),
            networks=networks,
        )

    def compiler(self, where: str) -> str:
        """Return the compiler's version: its numbers, or its text where an old compiler wrote no numbers."""
        if any(self.version):
            return ".".join(map(str, self.version))
        if not self.version_text:
            raise ModelFileBad("it does not say which compiler made it", where=where)
        return self.version_text


def _number(values: Mapping[int, Value], field: int) -> int:
    value = values.get(field, 0)
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _check_resource(resource: _Resource, data: memoryview, header: _Header, where: str) -> None:
    begin = header.resources_at + resource.offset
    end = begin + resource.size
    if end > len(data):
        raise ModelFileBad("a resource of it lies past its end", where=where, fix="fetch it again")
    if resource.digest and _xxh3(data[begin:end]) != resource.digest:
        raise ModelFileBad("the checksum of a resource is not that of its bytes", where=where, fix="fetch it again")
