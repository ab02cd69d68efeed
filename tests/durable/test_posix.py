"""The disk of a real machine: what it promises, in the kernel's own calls, and what it says when it cannot."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.durable import Disk, DiskBroken, DiskFull, Locked, PosixDisk, ReadOnlyDisk, hash_file
from drupelet.durable.posix import TEMPORARY_SUFFIX


@pytest.fixture
def disk() -> PosixDisk:
    return PosixDisk()


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Have the kernel refuse writes past `size` bytes of any file, with part of a write done, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The durable calls in their order: `fsync <name>`, `rename <name>`."""
    seen: list[str] = []

    def named(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").resolve().name

    real_fsync, real_fdatasync, real_rename, real_replace = os.fsync, os.fdatasync, Path.rename, Path.replace

    def fsync(descriptor: int) -> None:
        seen.append(f"fsync {named(descriptor)}")
        real_fsync(descriptor)

    def fdatasync(descriptor: int) -> None:
        seen.append(f"fsync {named(descriptor)}")
        real_fdatasync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return real_rename(path, target)

    def replace(path: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", replace)
    return seen


def test_replace_syncs_file_then_renames_then_syncs_folder(tmp_path: Path, disk: PosixDisk, calls: list[str]) -> None:
    disk.replace(tmp_path / "a", b"1")
    assert calls == [f"fsync a{TEMPORARY_SUFFIX}", "rename a", f"fsync {tmp_path.name}"]


def test_new_folders_are_synced_into_the_ones_above(tmp_path: Path, disk: PosixDisk, calls: list[str]) -> None:
    disk.replace(tmp_path / "x" / "y" / "a", b"1")
    assert calls[:2] == [f"fsync {tmp_path.name}", "fsync x"]
    assert calls[-1] == "fsync y"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o700


def test_publish_syncs_file_then_renames_then_syncs_both_folders(
    tmp_path: Path, disk: PosixDisk, calls: list[str]
) -> None:
    part, final = tmp_path / "parts" / "a.part", tmp_path / "store" / "a"
    with disk.part(part) as file:
        file.write(b"1")
    final.parent.mkdir()
    calls.clear()
    disk.publish(part, final)
    assert calls == ["fsync a.part", "rename a", "fsync store", "fsync parts"]
    assert stat.S_IMODE(final.stat().st_mode) == 0o444


def test_append_syncs_the_file_and_at_first_the_folder(tmp_path: Path, disk: PosixDisk, calls: list[str]) -> None:
    disk.append(tmp_path / "log", b"1\n")
    assert calls == ["fsync log", f"fsync {tmp_path.name}"]
    calls.clear()
    disk.append(tmp_path / "log", b"2\n")
    assert calls == ["fsync log"]
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("act", ["link", "remove", "truncate"])
def test_names_that_come_and_go_are_synced(tmp_path: Path, disk: PosixDisk, calls: list[str], act: str) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    if act == "link":
        disk.link(tmp_path / "a", tmp_path / "b")
        disk.link(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").stat().st_ino == (tmp_path / "a").stat().st_ino
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    elif act == "remove":
        disk.remove(tmp_path / "a")
        disk.remove(tmp_path / "a")
        assert not (tmp_path / "a").exists()
    else:
        disk.truncate(tmp_path / "a", 2)
        assert (tmp_path / "a").read_bytes() == b"12"
    assert calls[-1] in {f"fsync {tmp_path.name}", "fsync a"}


@pytest.mark.parametrize("size", [0, 1, 100, 4096])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, disk: PosixDisk, size: int) -> None:
    disk.replace(tmp_path / "a", b"old")
    with full_at(size), pytest.raises(DiskFull) as caught:
        disk.replace(tmp_path / "a", b"n" * 5000)
    assert caught.value.reason is Reason.DISK_FULL
    assert caught.value.fix
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_no_half_record_in_a_log(tmp_path: Path, disk: PosixDisk) -> None:
    disk.append(tmp_path / "log", b"one\n")
    with full_at(100), pytest.raises(DiskFull):
        disk.append(tmp_path / "log", b"x" * 200)
    disk.append(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_full_disk_leaves_whole_writes_in_a_part_file(tmp_path: Path, disk: PosixDisk) -> None:
    with disk.part(tmp_path / "a.part") as file:
        file.write(b"one")
        with full_at(100), pytest.raises(DiskFull):
            file.write(b"x" * 200)
        assert file.size == 3
        file.write(b"two")
        file.sync()
        assert file.size == 6
    assert (tmp_path / "a.part").read_bytes() == b"onetwo"


def test_a_part_file_is_taken_up_where_it_was_left(tmp_path: Path, disk: PosixDisk) -> None:
    for piece, size in ((b"one", 3), (b"two", 6)):
        with disk.part(tmp_path / "a.part") as file:
            file.write(piece)
            assert file.size == size
    with disk.part(tmp_path / "a.part") as file:
        file.truncate(4)
        file.write(b"!")
    assert (tmp_path / "a.part").read_bytes() == b"onet!"


def test_what_is_not_there_is_not_found(tmp_path: Path, disk: PosixDisk) -> None:
    absent = tmp_path / "absent"
    for act in (
        lambda: disk.size(absent),
        lambda: disk.read(absent, bytes_max=1),
        lambda: disk.read_at(absent, 0, 1),
        lambda: disk.truncate(absent, 0),
        lambda: disk.publish(absent, tmp_path / "b"),
        lambda: disk.link(absent, tmp_path / "b"),
    ):
        with pytest.raises(NotFound):
            act()
    assert not disk.exists(absent)
    assert disk.names(absent) == ()
    assert disk.free_bytes(absent / "deeper") > 0


def test_reads_are_bounded(tmp_path: Path, disk: PosixDisk) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert disk.read(tmp_path / "a", bytes_max=5) == b"12345"
    with pytest.raises(BadInput, match="4 bytes"):
        disk.read(tmp_path / "a", bytes_max=4)
    assert disk.read_at(tmp_path / "a", 3, 10) == b"45"
    assert disk.read_at(tmp_path / "a", 9, 10) == b""


def test_names_are_sorted_and_leave_out_temporaries(tmp_path: Path, disk: PosixDisk) -> None:
    for name in ("b", "a", f"c{TEMPORARY_SUFFIX}"):
        (tmp_path / name).touch()
    assert disk.names(tmp_path) == ("a", "b")


def test_a_temporary_left_by_a_crash_does_no_harm(tmp_path: Path, disk: PosixDisk) -> None:
    (tmp_path / f"a{TEMPORARY_SUFFIX}").write_bytes(b"left over, and longer than what comes")
    disk.replace(tmp_path / "a", b"new", mode=0o644)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    (tmp_path / f"b{TEMPORARY_SUFFIX}").write_bytes(b"left over")
    disk.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "error", "reason"),
    [
        ("EROFS", ReadOnlyDisk, Reason.DISK_ERROR),
        ("EACCES", ReadOnlyDisk, Reason.DISK_ERROR),
        ("ENOSPC", DiskFull, Reason.DISK_FULL),
        ("EDQUOT", DiskFull, Reason.DISK_FULL),
        ("EIO", DiskBroken, Reason.DISK_ERROR),
    ],
)
def test_the_kernels_refusals_are_said_in_words(
    tmp_path: Path,
    disk: PosixDisk,
    monkeypatch: pytest.MonkeyPatch,
    number: str,
    error: type[DiskBroken],
    reason: Reason,
) -> None:
    import errno

    code = getattr(errno, number)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    acts: list[Callable[[], object]] = [
        lambda: disk.replace(tmp_path / "a", b""),
        lambda: disk.append(tmp_path / "a", b""),
        lambda: disk.part(tmp_path / "a"),
    ]
    for act in acts:
        with pytest.raises(error) as caught:
            act()
        assert type(caught.value) is error
        assert caught.value.reason is reason
        assert str(tmp_path / "a") in caught.value.line()


def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path, disk: PosixDisk) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(DiskBroken):
        disk.replace(tmp_path / "a" / "b", b"")
    with pytest.raises(DiskBroken):
        disk.read(tmp_path, bytes_max=1)


def hold(path: Path, held: multiprocessing.synchronize.Event) -> None:
    with PosixDisk().lock(path, holder="agent 42"):
        held.set()
        signal.pause()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path, disk: PosixDisk) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path / "lock", held))
    other.start()
    try:
        assert held.wait(timeout=20)
        with pytest.raises(Locked, match="agent 42"), disk.lock(tmp_path / "lock", holder="agent 43"):
            pass
    finally:
        other.kill()
        other.join()
    with disk.lock(tmp_path / "lock", holder="agent 43"), pytest.raises(Locked, match="agent 43"):  # noqa: SIM117
        with disk.lock(tmp_path / "lock", holder="agent 44"):
            pass


def test_hashing_a_file(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a").write_bytes(b"")
    empty = Digest.parse("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert hash_file(disk, tmp_path / "a") == (empty, 0)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    assert hash_file(disk, tmp_path / "b")[1] == 3_000_000


def test_folders_for_others_are_made_on_request(tmp_path: Path) -> None:
    PosixDisk(folder_mode=0o755).replace(tmp_path / "depot" / "a", b"")
    assert stat.S_IMODE((tmp_path / "depot").stat().st_mode) == 0o755
