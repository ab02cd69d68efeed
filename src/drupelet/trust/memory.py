"""What a device remembers of trust, each in one file that is replaced in one step.

A file is the SHA-256 of its second part, an end of line, and JSON. A damaged file counts as absent: the device then
starts again from the root it was given, which costs a download and the memory of versions seen, and bricks nothing.
(A flipped bit read as a huge version number would.)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import Disk
from drupelet.trust.staged import Known
from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.fields import Count, DigestText, NameText

STATE_BYTES_MAX = 8 * 1024 * 1024
"""Metadata of one repository: bounded by the limits of each file."""

NameOfFile = Annotated[str, Meta(max_length=256, pattern=r"^[A-Za-z0-9%._-]+\.json$")]


class TargetMemory(msgspec.Struct, frozen=True, kw_only=True):
    """The file the director's order points at."""

    path: Annotated[str, Meta(max_length=256)]
    length: Count
    sha256: DigestText


class RepositoryMemory(Message, frozen=True, kw_only=True):
    """The verified metadata of the image repository, and when it was last signed as far as we know."""

    FORMAT: ClassVar[str] = "drupelet.images-seen/1"
    BYTES_MAX: ClassVar[int] = STATE_BYTES_MAX

    format: str = "drupelet.images-seen/1"
    roots: dict[NameOfFile, str]
    files: dict[NameOfFile, str]


class TimeMemory(Message, frozen=True, kw_only=True):
    """The latest signed time seen: the floor of trusted time, in Unix seconds."""

    FORMAT: ClassVar[str] = "drupelet.time-seen/1"
    BYTES_MAX: ClassVar[int] = 4096

    format: str = "drupelet.time-seen/1"
    signed_at_s: Count


class DirectorMemory(Message, frozen=True, kw_only=True):
    """The verified metadata of this device's director, and the marks below which nothing is accepted."""

    FORMAT: ClassVar[str] = "drupelet.director-seen/1"
    BYTES_MAX: ClassVar[int] = STATE_BYTES_MAX

    format: str = "drupelet.director-seen/1"
    device: NameText
    root_version: Count
    serial: Count
    """The highest order serial accepted under this root."""
    expires_s: Count
    """When the first of these files expires, in Unix seconds."""
    target: TargetMemory | None
    order: str
    """The order's JSON, empty if there is none."""
    roots: dict[NameOfFile, str]
    files: dict[NameOfFile, str]


M = TypeVar("M", bound=Message)


def remember(disk: Disk, path: Path, message: Message) -> None:
    """Durably write `message`."""
    text = encode(message)
    disk.replace(path, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def recall(disk: Disk, path: Path, kind: type[M]) -> M | None:
    """Return what was remembered, or None if there is nothing or it is damaged."""
    try:
        data = disk.read(path, bytes_max=kind.BYTES_MAX + 65)
        seal, _, text = data.partition(b"\n")
        return decode(kind, text, where=str(path)) if seal == hashlib.sha256(text).hexdigest().encode() else None
    except (NotFound, BadInput):
        return None


def known_of(memory: RepositoryMemory | DirectorMemory | None) -> Known:
    """Return remembered metadata as bytes."""
    if memory is None:
        return Known()
    return Known(
        roots={name: text.encode() for name, text in memory.roots.items()},
        files={name: text.encode() for name, text in memory.files.items()},
    )


def texts_of(files: Known) -> tuple[dict[str, str], dict[str, str]]:
    """Return verified files as text; they are JSON in UTF-8, or they would not have been verified."""
    roots = {name: data.decode() for name, data in files.roots.items()}
    return roots, {name: data.decode() for name, data in files.files.items()}
