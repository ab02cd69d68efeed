"""Several files as one blob: a plain tar that is always the same for the same files, and that is opened without trust.

Formats that are folders (ONNX Runtime GenAI, OpenVINO) become one file, so that a variant stays one digest. It is a
POSIX ustar archive, uncompressed, because quantized weights hardly shrink and delta and resume want the bytes as they
are: files alone, in the order of their names, owner and time zero, two zero blocks at the end. Any `tar` reads it.

Reading is stricter than `tar` on purpose. What the writer would not have written (links, devices, sparse files, long
names, absolute paths, a name twice) is refused, as is more than the bounds. Nothing is written outside the folder.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drupelet.core.errors import BadInput

FILES_MAX = 256
FILE_BYTES_MAX = 8 << 30
"""What eleven octal digits of a ustar header say: just below 8 GiB."""
_BLOCK = 512
_PIECE = 1 << 20
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME = re.compile(rf"(?:{_PART}/){{0,3}}{_PART}")
_NAME_BYTES_MAX = 99
_REGULAR = b"0"


class BundleBad(BadInput):
    """Not a bundle as the forge writes them."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its name, where its bytes begin and how many there are."""

    name: str
    offset: int
    size_bytes: int


def write_bundle(folder: Path, put: Callable[[bytes], None]) -> None:
    """Give `put` the bundle of all files below `folder`, in pieces. Raises `BundleBad` for what cannot be in one."""
    found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if not path.is_dir())
    if not 1 <= len(found) <= FILES_MAX:
        raise BundleBad(f"there are {len(found)} files where 1 to {FILES_MAX} are allowed", where=str(folder))
    for name, path in found:
        size = path.stat().st_size
        if path.is_symlink() or not path.is_file() or not _allowed(name) or size >= FILE_BYTES_MAX:
            raise BundleBad(f"{name[:200]!r} cannot be in a bundle", where=str(folder))
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        put(header.tobuf(tarfile.USTAR_FORMAT))
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                put(piece)
        put(bytes(-size % _BLOCK))
    put(bytes(2 * _BLOCK))


def members(path: Path) -> tuple[Member, ...]:
    """Return what a bundle holds, its shape proved to the last byte. Raises `BundleBad`."""
    try:
        return tuple(_members(path))
    except OSError as error:
        raise BundleBad(f"cannot be read: {error.strerror}", where=str(path)) from error


def unpack(path: Path, folder: Path) -> tuple[Path, ...]:
    """Write a bundle's files below `folder`, which must be new or empty, and return them. Raises `BundleBad`."""
    written: list[Path] = []
    with path.open("rb") as file:
        for member in members(path):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            file.seek(member.offset)
            with target.open("xb") as out:
                for length in _lengths(member.size_bytes):
                    out.write(file.read(length))
            written.append(target)
    return tuple(written)


def _members(path: Path) -> Iterator[Member]:
    size, offset, before, count = path.stat().st_size, 0, "", 0
    where = str(path)
    with path.open("rb") as file:
        while (block := file.read(_BLOCK)) and block != bytes(_BLOCK):
            header = _header(block, offset, where)
            if header.name <= before:
                raise BundleBad(f"{header.name!r} is there twice or out of order", where=where)
            count += 1
            if count > FILES_MAX:
                raise BundleBad(f"there are more than {FILES_MAX} files", where=where)
            begins = offset + _BLOCK
            offset = begins + header.size + -header.size % _BLOCK
            if offset > size:
                raise BundleBad(f"it ends within {header.name!r}", where=where, fix="fetch it again")
            yield Member(header.name, begins, header.size)
            before = header.name
            file.seek(offset)
        if size - offset != 2 * _BLOCK or block + file.read() != bytes(2 * _BLOCK):
            raise BundleBad("it does not end as a bundle does", where=where, fix="fetch it again")
    if not count:
        raise BundleBad("there is no file in it", where=where)


def _header(block: bytes, offset: int, where: str) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise BundleBad(f"there is no file at byte {offset}", where=where, fix="fetch it again") from error
    if block[156:157] != _REGULAR or header.linkname:
        raise BundleBad(f"{header.name[:200]!r} is no plain file", where=where)
    if not _allowed(header.name):
        raise BundleBad(f"{header.name[:200]!r} is no name for a file in a bundle", where=where)
    if not 0 <= header.size < FILE_BYTES_MAX:
        raise BundleBad(f"{header.name!r} says that it has {header.size} bytes", where=where)
    return header


def _allowed(name: str) -> bool:
    plain = _NAME.fullmatch(name) is not None and len(name) <= _NAME_BYTES_MAX
    return plain and str(PurePosixPath(name)) == name


def _lengths(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, _PIECE)
        size -= _PIECE
