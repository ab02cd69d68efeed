"""A depot in a folder, as a `Store`: every write durable, one publisher at a time by a lock the kernel releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.depot.download import Download
from drupelet.depot.errors import ChangedMeanwhile, NoStore, Taken
from drupelet.depot.files import CHUNK_BYTES, PUBLIC, FilesDepot
from drupelet.depot.ports import Entry, Source, blob_path
from drupelet.durable import Disk
from drupelet.wire.codec import TooLarge

LOCK = ".publishing"
INCOMING = "incoming"
_MODE = 0o644
_STEP_BYTES = 8 << 20


class FolderStore:
    """A folder on this machine. Implements `Store`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._blobs = FilesDepot(disk, folder)

    @property
    def where(self) -> str:
        return str(self._folder)

    def require(self) -> None:
        """Raise `NoStore` if there is no such folder."""
        if not self._folder.is_dir():
            raise NoStore("there is no such folder", where=self.where, fix="name the folder that holds blobs/")

    def entry(self, name: str) -> Entry | None:
        path = self._folder / name
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not path.is_file() or path.is_symlink():
            return None
        modified = datetime.fromtimestamp(found.st_mtime_ns // 1_000_000_000, UTC)
        return Entry(name, found.st_size, modified, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for name in self._disk.names(self._folder / prefix):
            below = f"{prefix}/{name}" if prefix else name
            path = self._folder / below
            if path.is_symlink():
                continue
            if path.is_dir():
                yield from self.entries(below)
            elif (found := self.entry(below)) is not None:
                yield found

    def read(self, name: str, *, bytes_max: int) -> bytes:
        path = self._folder / name
        if self._disk.size(path) > bytes_max:
            raise TooLarge(f"larger than the {bytes_max} bytes allowed", where=str(path))
        return self._disk.read(path, bytes_max=bytes_max)

    def stream(self, name: str, *, offset: int = 0) -> Iterator[bytes]:
        while data := self._disk.read_at(self._folder / name, offset, CHUNK_BYTES):
            yield data
            offset += len(data)

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        return self._blobs.open(digest, offset=offset, size=size)

    def create(self, name: str, data: bytes) -> bool:
        path = self._folder / name
        try:
            there = self._disk.read(path, bytes_max=max(len(data), self._disk.size(path)))
        except NotFound:
            self._disk.replace(path, data, mode=_MODE)
            return True
        if there != data:
            raise Taken("other bytes lie under this name", where=str(path), fix="give the release a new version")
        return False

    def put_blob(self, digest: Digest, source: Source, *, size: int, progress: Callable[[int], None]) -> None:
        part = self._folder / INCOMING / f"{digest.hex}.part"
        with Download(source, self._disk, part=part, digest=digest, size=size) as download:
            while True:
                state = download.step(_STEP_BYTES)
                progress(state.done)
                if state.finished:
                    break
        self._disk.publish(part, self._folder / blob_path(digest), mode=PUBLIC)

    def replace(self, name: str, data: bytes, *, was: Entry | None) -> None:
        if self.entry(name) != was:
            raise ChangedMeanwhile("somebody else wrote it meanwhile", where=str(self._folder / name), fix="try again")
        self._disk.replace(self._folder / name, data, mode=_MODE)

    def remove(self, name: str) -> None:
        self._disk.remove(self._folder / name)

    def exclusive(self, holder: str) -> AbstractContextManager[None]:
        return self._disk.lock(self._folder / LOCK, holder=holder)
