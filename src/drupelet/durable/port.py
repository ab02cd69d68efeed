"""What the rest of Drupelet may ask of a disk, and what it may rely on.

The theory. A file system promises little: data written reaches the medium after `fsync` of the file, a name after
`fsync` of its folder, and `rename` within one file system replaces a name in one step. So there are four durable
operations and no others:

- `replace`: the whole content of a small file, by temporary file, fsync, rename, fsync of the folder;
- `append`: a record at the end of a log, by write and fsync. A crash leaves a prefix of the record, so a log's
  records carry a checksum and a reader drops a torn tail;
- `publish`: a finished part file takes its final name, by fsync, rename, fsync of the folder;
- `link` and `remove`: a name appears or goes, followed by fsync of the folder.

When one of them returns, its effect survives a power cut; when it raises or the power goes, either the old or the
new state is there (for `append`, a prefix). Part files promise nothing until they are synced or published.

    Unavailable (core)
    `- DiskBroken          the disk answered with an error
       |- DiskFull         no space, no inodes or a quota
       `- ReadOnlyDisk     mounted read-only, or no permission
    Conflict (core)
    `- Locked              another process holds the lock
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from drupelet.core.errors import Conflict, Unavailable
from drupelet.core.names import Digest
from drupelet.core.states import Reason

CHUNK_BYTES = 1 << 20
"""Read and hash in pieces of 1 MiB: past 256 KiB the hash, not the call, takes the time."""


class DiskBroken(Unavailable):
    """The disk answered with an error."""

    reason = Reason.DISK_ERROR


class DiskFull(DiskBroken):
    """No space, no inodes, or a quota."""

    reason = Reason.DISK_FULL


class ReadOnlyDisk(DiskBroken):
    """Mounted read-only, or no permission to write."""


class Locked(Conflict):
    """Another process holds the lock."""


class PartFile(Protocol):
    """A file that is being filled, in order. It survives a restart as far as it was synced, perhaps further."""

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def write(self, data: bytes) -> None:
        """Append `data`; not durable until `sync`."""
        ...

    def sync(self) -> None:
        """Make what was written durable."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def close(self) -> None:
        """Release the file without syncing."""
        ...

    def __enter__(self) -> PartFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Disk(Protocol):
    """A file system, reduced to what can be relied on. Paths are absolute; folders are made on the way."""

    def exists(self, path: Path) -> bool:
        """Whether something has this name."""
        ...

    def size(self, path: Path) -> int:
        """Bytes in a file; raises `NotFound`."""
        ...

    def names(self, folder: Path) -> tuple[str, ...]:
        """Sorted names in a folder, empty if there is none."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Bytes that may still be written below `folder`."""
        ...

    def read(self, path: Path, *, bytes_max: int) -> bytes:
        """Return a whole small file; raises `NotFound`, or `BadInput` if it is larger than `bytes_max`."""
        ...

    def read_at(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the file's end."""
        ...

    def replace(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Durably make `data` the whole content of `path`, in one step."""
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Durably add `data` to the end of `path`; a crash leaves a prefix of it."""
        ...

    def truncate(self, path: Path, size: int) -> None:
        """Durably cut `path` to `size` bytes: to drop a torn tail."""
        ...

    def part(self, path: Path) -> PartFile:
        """Open a part file for appending, keeping what it holds."""
        ...

    def publish(self, part: Path, final: Path, *, mode: int = 0o444) -> None:
        """Durably give a finished part file its final name, replacing what had it."""
        ...

    def link(self, source: Path, name: Path) -> None:
        """Durably make `name` a second name of `source` (a hard link), replacing what had it."""
        ...

    def remove(self, path: Path) -> None:
        """Durably remove a file; nothing happens if it is not there."""
        ...

    def lock(self, path: Path, *, holder: str) -> AbstractContextManager[None]:
        """Hold an exclusive lock while in the context; raises `Locked` at once, naming the holder."""
        ...


def hash_file(disk: Disk, path: Path) -> tuple[Digest, int]:
    """Return the digest and size of a file, read in pieces."""
    digest = hashlib.sha256()
    offset = 0
    while data := disk.read_at(path, offset, CHUNK_BYTES):
        digest.update(data)
        offset += len(data)
    return Digest.of_hex(digest.hexdigest()), offset
