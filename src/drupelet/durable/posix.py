"""The `Disk` of a real machine."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable.port import DiskBroken, DiskFull, Locked, ReadOnlyDisk

TEMPORARY_SUFFIX = ".drupelet-tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def _said_plainly(path: Path, doing: str) -> Iterator[None]:
    """Turn `OSError` into this room's errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"cannot {doing}: there is no such file", where=str(path)) from error
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _FULL:
            raise DiskFull(f"cannot {doing}: {words}", where=str(path), fix="free space on this disk") from error
        if error.errno in _READ_ONLY:
            fix = "remount it writable, or check the folder's owner and mode"
            raise ReadOnlyDisk(f"cannot {doing}: {words}", where=str(path), fix=fix) from error
        raise DiskBroken(f"cannot {doing}: {words}", where=str(path)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path, mode: int) -> None:
    """Make `folder` and those above it, each made durable in the one that holds it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, mode)
    with suppress(FileExistsError):
        folder.mkdir(mode=mode)
        _sync_folder(folder.parent)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class PosixPartFile:
    """A part file on a real disk."""

    def __init__(self, path: Path, *, folder_mode: int) -> None:
        self._path = path
        with _said_plainly(path, "open part file"):
            _make_folder(path.parent, folder_mode)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._descriptor).st_size

    @property
    def size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        with _said_plainly(self._path, "write"):
            try:
                _write_all(self._descriptor, data)
            except OSError:
                # A full disk may have taken some of it: take that back, so that the file holds whole writes only.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise
        self._size += len(data)

    def sync(self) -> None:
        with _said_plainly(self._path, "sync"):
            os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        with _said_plainly(self._path, "truncate"):
            os.ftruncate(self._descriptor, size)
        self._size = size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> PosixPartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class PosixDisk:
    """Implements `Disk` with fsync of file and folder, and rename.

    Folders it makes are its owner's alone; a depot that a web server of another user serves wants `folder_mode=0o755`.
    """

    def __init__(self, *, folder_mode: int = 0o700) -> None:
        self._folder_mode = folder_mode

    def exists(self, path: Path) -> bool:
        with _said_plainly(path, "look up"):
            return path.exists()

    def size(self, path: Path) -> int:
        with _said_plainly(path, "read"):
            return path.stat().st_size

    def names(self, folder: Path) -> tuple[str, ...]:
        try:
            with _said_plainly(folder, "list"):
                found = os.listdir(folder)  # noqa: PTH208 (Path.iterdir makes a Path of every name)
        except NotFound:
            return ()
        return tuple(sorted(name for name in found if not name.endswith(TEMPORARY_SUFFIX)))

    def free_bytes(self, folder: Path) -> int:
        while not folder.exists():
            folder = folder.parent
        with _said_plainly(folder, "read free space"):
            state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize

    def read(self, path: Path, *, bytes_max: int) -> bytes:
        with _said_plainly(path, "read"), path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise BadInput(f"larger than the {bytes_max} bytes allowed", where=str(path))
        return data

    def read_at(self, path: Path, offset: int, length: int) -> bytes:
        with _said_plainly(path, "read"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

    def replace(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        with _said_plainly(path, "write"):
            _make_folder(path.parent, self._folder_mode)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                _write_all(descriptor, data)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
                raise
            finally:
                os.close(descriptor)
            temporary.rename(path)
            _sync_folder(path.parent)

    def append(self, path: Path, data: bytes) -> None:
        with _said_plainly(path, "append"):
            _make_folder(path.parent, self._folder_mode)
            fresh = not path.exists()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    _write_all(descriptor, data)
                    os.fdatasync(descriptor)
                except OSError:
                    # A full disk may have taken half the record: take it back, so that the next append starts clean.
                    with suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            if fresh:
                _sync_folder(path.parent)

    def truncate(self, path: Path, size: int) -> None:
        with _said_plainly(path, "truncate"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def part(self, path: Path) -> PosixPartFile:
        return PosixPartFile(path, folder_mode=self._folder_mode)

    def publish(self, part: Path, final: Path, *, mode: int = 0o444) -> None:
        with _said_plainly(part, "publish"):
            _make_folder(final.parent, self._folder_mode)
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(final)
            _sync_folder(final.parent)
            if part.parent != final.parent:
                _sync_folder(part.parent)

    def link(self, source: Path, name: Path) -> None:
        temporary = name.with_name(name.name + TEMPORARY_SUFFIX)
        with _said_plainly(source, "link"):
            _make_folder(name.parent, self._folder_mode)
            with suppress(FileNotFoundError):
                temporary.unlink()
            os.link(source, temporary)
            temporary.replace(name)
            # When both are already names of one file, rename does nothing and leaves the temporary name behind.
            with suppress(FileNotFoundError):
                temporary.unlink()
            _sync_folder(name.parent)

    def remove(self, path: Path) -> None:
        with _said_plainly(path, "remove"), suppress(FileNotFoundError):
            path.unlink()
            _sync_folder(path.parent)

    @contextmanager
    def lock(self, path: Path, *, holder: str) -> Iterator[None]:
        with _said_plainly(path, "lock"):
            _make_folder(path.parent, self._folder_mode)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
                raise Locked(f"held by {other}", where=str(path), fix="stop it first, or use another folder") from error
            with _said_plainly(path, "lock"):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
            yield
        finally:
            os.close(descriptor)
