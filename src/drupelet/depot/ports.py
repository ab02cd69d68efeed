"""What a download asks of wherever blobs lie, and what a publisher asks of wherever a depot is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from drupelet.core.names import Digest

_NAME = r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*"
_SHAPES = (
    re.compile(rf"metadata/({_NAME}\.json)\Z"),
    re.compile(rf"targets/({_NAME})/({_NAME})/([0-9a-f]{{64}}\.{_NAME})\Z"),
    re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z"),
)
PATH_CHARACTERS_MAX = 512
TIMESTAMP = "metadata/timestamp.json"
"""The one file of a depot that changes."""
IMMUTABLE = "public, max-age=31536000, immutable"
"""A year: what is named by its digest or its version never changes."""
_UNCHANGING = re.compile(r"(metadata/[0-9]+\.|targets/|blobs/)")


class Source(Protocol):
    """Somewhere blobs lie. What it yields is believed in nothing; `Download` hashes."""

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on; a source that knows the blob's size compares it with `size`.

        Raises `NoBlob`, `BlobRefused` (TOO_LARGE, TRUNCATED) or `SourceUnreachable`, while it is iterated.
        """
        ...


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A file of a store: its name below the depot, its bytes, when it was written, and a tag that changes with it."""

    name: str
    size_bytes: int
    modified: datetime
    tag: str


class Store(Source, Protocol):
    """Somewhere a whole depot is kept: a folder, a bucket. Names are those of docs/formats/depot.md.

    Every method raises `SourceUnreachable`, `StoreRefused` or `NoStore` besides what it says.
    """

    @property
    def where(self) -> str:
        """The address, as a person writes it; no secrets in it."""
        ...

    def entry(self, name: str) -> Entry | None:
        """Return what lies under `name`, or None."""
        ...

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield what lies below the folder `prefix`, in no particular order."""
        ...

    def read(self, name: str, *, bytes_max: int) -> bytes:
        """Return a small file whole; raises `NotFound` or `TooLarge`."""
        ...

    def stream(self, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield a file's bytes; raises `NotFound` while it is iterated."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that never changes; False if it is there already. Raises `Taken` if other bytes are there."""
        ...

    def put_blob(self, digest: Digest, source: Source, *, size: int, progress: Callable[[int], None]) -> None:
        """Copy a blob in from `source`; it appears whole and right, or not at all. `progress` hears the bytes done.

        Raises `BlobRefused`, and what the source raises. A store that can takes up what an earlier try left.
        """
        ...

    def replace(self, name: str, data: bytes, *, was: Entry | None) -> None:
        """Write a file that changes, if it is still as `was` says (None: not there); else `ChangedMeanwhile`."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        ...

    def exclusive(self, holder: str) -> AbstractContextManager[None]:
        """Keep every other publisher and collector out while in the context; raises `InUse` or durable's `Locked`."""
        ...


def blob_path(digest: Digest) -> str:
    """Return where a blob lies below a depot."""
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"


def blob_of(name: str) -> Digest | None:
    """Return the digest of the blob that has this name, or None if it is no blob's name."""
    return Digest.of_hex(name[-64:]) if _SHAPES[2].match(name) else None


def is_depot_path(path: str) -> bool:
    """Whether this is a name a depot can have."""
    return len(path) <= PATH_CHARACTERS_MAX and any(shape.match(path) for shape in _SHAPES)


def cache_control(path: str) -> str:
    """Return what a cache between depot and device may do with this file."""
    return IMMUTABLE if _UNCHANGING.match(path) else "no-cache"
