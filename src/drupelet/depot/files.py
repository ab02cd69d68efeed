"""A depot that is a folder: what `forge` writes, what any web server serves, what a USB stick carries."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import BlobRefused, NoBlob
from drupelet.depot.ports import blob_path
from drupelet.durable import Disk, hash_file

CHUNK_BYTES = 1 << 20
PUBLIC = 0o444
_incoming = itertools.count(1)


class FilesDepot:
    """Blobs by digest below `folder`. Implements `Source`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies, or would."""
        return self._folder / blob_path(digest)

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there. It appeared whole; whether it still is, `check` says."""
        return self._disk.exists(self.path(digest))

    def put(self, source: Path, *, expected: Digest | None = None) -> tuple[Digest, int]:
        """Copy a file in, hashing on the way; it appears under its digest, whole, or not at all.

        Where the blob `expected` lies already, the file is hashed and not copied if that is what it is.
        """
        if expected is not None and self.has(expected):
            found, size = hash_file(self._disk, source)
            if found == expected:
                return found, size
        part = self._folder / "incoming" / f"{os.getpid()}-{next(_incoming)}.part"
        hashing = hashlib.sha256()
        offset = 0
        try:
            with self._disk.part(part) as file:
                file.truncate(0)
                while data := self._disk.read_at(source, offset, CHUNK_BYTES):
                    hashing.update(data)
                    file.write(data)
                    offset += len(data)
            digest = Digest.of_hex(hashing.hexdigest())
            if not self.has(digest):
                self._disk.publish(part, self.path(digest), mode=PUBLIC)
        finally:
            self._disk.remove(part)
        return digest, offset

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on; see `Source.open`."""
        path = self.path(digest)
        try:
            there = self._disk.size(path)
        except NotFound as error:
            raise NoBlob(f"{digest} is not in this depot", where=str(self._folder)) from error
        if there != size:
            reason = Reason.TOO_LARGE if there > size else Reason.TRUNCATED
            raise BlobRefused(f"{digest} has {there} bytes where {size} were signed", reason=reason, where=str(path))
        while data := self._disk.read_at(path, offset, CHUNK_BYTES):
            yield data
            offset += len(data)

    def digests(self) -> Iterator[Digest]:
        """Yield every blob's digest, in order."""
        top = self._folder / "blobs" / "sha256"
        for head in self._disk.names(top):
            for name in self._disk.names(top / head):
                yield Digest.of_hex(name)

    def check(self, digest: Digest) -> int:
        """Hash a blob again and return its size, or raise `NoBlob` or `BlobRefused(DIGEST_MISMATCH)`."""
        try:
            found, size = hash_file(self._disk, self.path(digest))
        except NotFound as error:
            raise NoBlob(f"{digest} is not in this depot", where=str(self._folder)) from error
        if found != digest:
            raise BlobRefused(
                f"holds {found}",
                reason=Reason.DIGEST_MISMATCH,
                where=str(self.path(digest)),
                fix="remove it and publish the release again",
            )
        return size
