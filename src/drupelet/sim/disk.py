"""A disk that counts its durable operations and loses power at the one we name.

It promises exactly what `durable.port` promises and no more: a durable operation that returned is there after the cut;
one that was cut is there or not (an append: a prefix); what a part file holds beyond its last sync may be lost, or cut
anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import DiskFull, Locked


class PowerCut(BaseException):
    """The power went. Nothing may catch this but the world."""


class Cut(Enum):
    """Where in a durable operation the power goes."""

    BEFORE = "before"
    TORN = "torn"
    """An append left a prefix; any other operation did not happen, but the disk was busy with it."""
    AFTER = "after"


@dataclass(slots=True)
class Inode:
    """A file's bytes, which may have several names."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One durable operation, as recorded."""

    number: int
    kind: str
    path: Path


class SimPartFile:
    """A part file on a simulated disk."""

    def __init__(self, disk: SimDisk, path: Path, inode: Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return len(self._inode.data)

    def write(self, data: bytes) -> None:
        """Append; may be lost until the next sync."""
        self._disk.take_room(len(data), self._path)
        self._inode.data += data
        self._disk.written_bytes += len(data)

    def sync(self) -> None:
        """Make it durable."""

        def act() -> None:
            self._inode.synced = len(self._inode.data)

        self._disk.durably("sync", self._path, act)

    def truncate(self, size: int) -> None:
        """Cut the file."""
        del self._inode.data[size:]
        self._inode.synced = min(self._inode.synced, size)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> SimPartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class SimDisk:
    """Implements `durable.Disk` in memory."""

    def __init__(self, *, seed: int = 0, capacity_bytes: int = 1 << 34) -> None:
        self.files: dict[Path, Inode] = {}
        self.operations: list[Operation] = []
        self.capacity_bytes = capacity_bytes
        self.written_bytes = 0
        self.full = False
        """Refuse whatever needs room, as a disk that something else has filled."""
        self._random = random.Random(seed)
        self._cut_at: int | None = None
        self._cut = Cut.BEFORE
        self._locked: dict[Path, str] = {}

    def cut_power_at(self, number: int, how: Cut) -> None:
        """Cut the power at the `number`-th durable operation from the disk's first one on."""
        self._cut_at, self._cut = number, how

    def power_on(self) -> None:
        """After a cut: no locks are held, nothing is scheduled."""
        self._cut_at = None
        self._locked.clear()

    @property
    def count(self) -> int:
        """Durable operations so far."""
        return len(self.operations)

    def durably(
        self, kind: str, path: Path, act: Callable[[], None], *, torn: Callable[[], None] | None = None
    ) -> None:
        """Do a durable operation, unless the power goes."""
        self.operations.append(Operation(self.count + 1, kind, path))
        if self.count == self._cut_at:
            if self._cut is Cut.AFTER:
                act()
            elif self._cut is Cut.TORN and torn is not None:
                torn()
            self._lose_unsynced()
            raise PowerCut
        act()

    def _lose_unsynced(self) -> None:
        for inode in {id(inode): inode for inode in self.files.values()}.values():
            kept = self._random.randint(inode.synced, len(inode.data))
            del inode.data[kept:]
            inode.synced = kept

    def take_room(self, size: int, path: Path) -> None:
        """Raise `DiskFull` if `size` more bytes do not fit."""
        if self.full or size > self._free():
            raise DiskFull("cannot write: No space left on device", where=str(path), fix="free space on this disk")

    def _free(self) -> int:
        used = sum(len(inode.data) for inode in {id(i): i for i in self.files.values()}.values())
        return 0 if self.full else max(0, self.capacity_bytes - used)

    def _inode(self, path: Path) -> Inode:
        if path not in self.files:
            raise NotFound("cannot read: there is no such file", where=str(path))
        return self.files[path]

    # The port

    def exists(self, path: Path) -> bool:
        """Whether something has this name."""
        return path in self.files or any(path in other.parents for other in self.files)

    def size(self, path: Path) -> int:
        """Bytes in a file."""
        return len(self._inode(path).data)

    def names(self, folder: Path) -> tuple[str, ...]:
        """Sorted names in a folder."""
        prefix = f"{folder}/"
        return tuple(
            sorted({str(path)[len(prefix) :].partition("/")[0] for path in self.files if str(path).startswith(prefix)})
        )

    def free_bytes(self, folder: Path) -> int:  # noqa: ARG002  (one simulated file system)
        """Bytes left."""
        return self._free()

    def read(self, path: Path, *, bytes_max: int) -> bytes:
        """Return a whole small file."""
        data = bytes(self._inode(path).data)
        if len(data) > bytes_max:
            raise BadInput(f"larger than the {bytes_max} bytes allowed", where=str(path))
        return data

    def read_at(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        return bytes(self._inode(path).data[offset : offset + length])

    def replace(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:  # noqa: ARG002  (modes are not simulated)
        """Durably replace a file's content."""
        self.take_room(len(data), path)

        def act() -> None:
            self.files[path] = Inode(bytearray(data), len(data))

        self.written_bytes += len(data)
        self.durably("replace", path, act)

    def append(self, path: Path, data: bytes) -> None:
        """Durably append; a cut may leave a prefix."""
        self.take_room(len(data), path)

        def add(part: bytes) -> None:
            inode = self.files.setdefault(path, Inode())
            inode.data += part
            inode.synced = len(inode.data)

        self.written_bytes += len(data)
        self.durably(
            "append", path, lambda: add(data), torn=lambda: add(data[: self._random.randint(1, max(1, len(data) - 1))])
        )

    def truncate(self, path: Path, size: int) -> None:
        """Durably cut a file."""
        inode = self._inode(path)

        def act() -> None:
            del inode.data[size:]
            inode.synced = size

        self.durably("truncate", path, act)

    def part(self, path: Path) -> SimPartFile:
        """Open a part file."""
        return SimPartFile(self, path, self.files.setdefault(path, Inode()))

    def publish(self, part: Path, final: Path, *, mode: int = 0o444) -> None:  # noqa: ARG002  (modes are not simulated)
        """Durably give a part file its final name."""
        inode = self._inode(part)

        def act() -> None:
            inode.synced = len(inode.data)
            del self.files[part]
            self.files[final] = inode

        self.durably("publish", final, act)

    def link(self, source: Path, name: Path) -> None:
        """Durably add a name."""
        inode = self._inode(source)
        self.durably("link", name, lambda: self.files.__setitem__(name, inode))

    def remove(self, path: Path) -> None:
        """Durably remove a name."""
        if path in self.files:
            self.durably("remove", path, lambda: self.files.__delitem__(path))

    @contextmanager
    def lock(self, path: Path, *, holder: str) -> Iterator[None]:
        """Hold a lock."""
        if path in self._locked:
            raise Locked(f"held by {self._locked[path]}", where=str(path))
        self._locked[path] = holder
        try:
            yield
        finally:
            self._locked.pop(path, None)
