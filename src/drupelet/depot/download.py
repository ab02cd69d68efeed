"""A download that survives restarts, in steps small enough to keep polling in between.

The part file is filled in order and synced every `sync_bytes`. After a power cut, what lies past the last sync may be
anything (a file system may have grown the file and not written it). A restart cannot tell a power cut from a kill, so
it keeps only what a sync is known to have covered: with `sync_bytes` = S and a file of n bytes, the first
floor((n - 1) / S) * S. That prefix is hashed once; from there on bytes are hashed as they come, never read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import BlobRefused, SourceUnreachable
from drupelet.depot.ports import Source
from drupelet.durable import Disk, PartFile

SYNC_BYTES = 4 << 20
"""At most this much is fetched again after a restart; on an SD card a sync takes tens of milliseconds."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is, in bytes. `finished` means that the part file is whole, hashed and synced."""

    done: int
    total: int
    finished: bool


class Download:
    """Fills `part` with the blob `digest` of `size` bytes. Not finished: call `step` again. Use as a context.

    After `finished`, publish the part file with `Disk.publish`.
    """

    def __init__(
        self,
        source: Source,
        disk: Disk,
        *,
        part: Path,
        digest: Digest,
        size: int,
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        self._source = source
        self._disk = disk
        self._part = part
        self._digest = digest
        self._size = size
        self._sync_bytes = sync_bytes
        self._file: PartFile | None = None
        self._chunks: Iterator[bytes] | None = None
        self._waiting = b""
        self._hash = hashlib.sha256()
        self._kept = 0
        self._done = 0
        self._synced = 0
        self._finished = False

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of file and connection; the part file stays and may be taken up again."""
        chunks, self._chunks, self._waiting = self._chunks, None, b""
        if chunks is not None and hasattr(chunks, "close"):
            chunks.close()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def step(self, bytes_max: int) -> Progress:
        """Hash or fetch up to about `bytes_max` bytes more.

        Raises `BlobRefused` (DIGEST_MISMATCH and the part file is gone; TOO_LARGE; TRUNCATED), `SourceUnreachable`
        (SERVER_UNREACHABLE, DOWNLOAD_STALLED), `NoBlob`, or durable's `DiskFull`, `ReadOnlyDisk`, `DiskBroken`. After
        any of them `step` may be called again: it takes up the part file as after a restart.
        """
        try:
            return self._step(bytes_max)
        except BaseException:
            self.close()
            raise

    def _step(self, bytes_max: int) -> Progress:
        if self._finished:
            return Progress(self._size, self._size, True)
        file = self._file if self._file is not None else self._open()
        if self._done < self._kept:
            self._hash_kept(bytes_max)
            return Progress(self._done, self._size, False)
        end = min(self._size, self._done + max(1, bytes_max))
        while self._done < end:
            data = self._next(end - self._done)
            file.write(data)
            self._hash.update(data)
            self._done += len(data)
            if self._done - self._synced >= self._sync_bytes:
                file.sync()
                self._synced = self._done
        if self._done < self._size:
            return Progress(self._done, self._size, False)
        self._finish(file)
        return Progress(self._done, self._size, True)

    def _open(self) -> PartFile:
        """Open the part file and keep the prefix that a sync is known to have covered."""
        file = self._disk.part(self._part)
        there = file.size
        self._kept = 0 if there > self._size or there == 0 else (there - 1) // self._sync_bytes * self._sync_bytes
        if there > self._kept:
            file.truncate(self._kept)
        self._file = file
        self._hash = hashlib.sha256()
        self._done = self._synced = 0
        return file

    def _hash_kept(self, bytes_max: int) -> None:
        end = min(self._kept, self._done + max(1, bytes_max))
        while self._done < end:
            data = self._disk.read_at(self._part, self._done, min(READ_BYTES, end - self._done))
            if not data:
                raise NotFound("the part file became shorter while it was read", where=str(self._part))
            self._hash.update(data)
            self._done += len(data)
        self._synced = self._done

    def _next(self, bytes_max: int) -> bytes:
        """Return the next bytes, at most `bytes_max` and never past the next sync."""
        if not self._waiting:
            if self._chunks is None:
                self._chunks = self._source.open(self._digest, offset=self._done, size=self._size)
            data = b""
            while not data:
                found = next(self._chunks, None)
                if found is None:
                    raise BlobRefused(
                        f"the source ends after {self._done} of {self._size} bytes",
                        reason=Reason.TRUNCATED,
                        where=str(self._digest),
                    )
                data = found
            self._waiting = data
        limit = min(bytes_max, self._synced + self._sync_bytes - self._done)
        data, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return data

    def _finish(self, file: PartFile) -> None:
        """Compare and sync. A part file of other bytes is dropped whole: nobody knows which of them are right."""
        found = Digest.of_hex(self._hash.hexdigest())
        try:
            self._refuse_surplus()
            if found != self._digest:
                raise BlobRefused(
                    f"the bytes received are {found}",
                    reason=Reason.DIGEST_MISMATCH,
                    where=str(self._digest),
                    fix="the part file was dropped; the next attempt starts anew",
                )
        except BlobRefused:
            self.close()
            self._disk.remove(self._part)
            raise
        file.sync()
        self.close()
        self._finished = True

    def _refuse_surplus(self) -> None:
        """Raise `BlobRefused` if the source has more to give."""
        try:
            surplus = self._waiting or (next(self._chunks, b"") if self._chunks is not None else b"")
        except SourceUnreachable:
            return  # all bytes are here, and the digest judges them
        if surplus:
            raise BlobRefused(
                f"the source sends more than the {self._size} bytes signed",
                reason=Reason.TOO_LARGE,
                where=str(self._digest),
            )
