from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.core.errors import BadInput
from drupelet.core.states import ExitReason
from drupelet.durable import DiskBroken, DiskFull, PosixDisk
from drupelet.telemetry.spool import RESERVE, Spool
from drupelet.wire.telemetry import Window

BYTES_MAX = 64 * 1024


def windows(first: int, last: int) -> list[Window]:
    """Windows with the gateway's own numbers; `started_at_ms` tells them apart afterwards."""
    return [Window(seq=n, boot="d-1", started_at_ms=n, ended_at_ms=n, elapsed_ms=1) for n in range(first, last + 1)]


def origins(spool: Spool) -> list[int]:
    return [window.started_at_ms for window in spool.peek(100_000, bytes_max=1 << 30)]


def seqs(spool: Spool) -> list[int]:
    return [window.seq for window in spool.peek(100_000, bytes_max=1 << 30)]


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Spool]:
    return lambda: Spool(PosixDisk(), tmp_path / "spool", bytes_max=BYTES_MAX)


def test_windows_stay_until_they_are_acknowledged(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    assert spool.append(windows(1, 5), boot="g-1") == 5
    assert (origins(spool), seqs(spool), spool.pending) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 5)
    spool.ack(3)
    assert (origins(spool), spool.pending) == ([4, 5], 2)
    assert len(spool.peek(1)) == 1
    assert len(spool.peek(10, bytes_max=1)) == 1
    spool.ack(5)
    assert (origins(spool), spool.pending, spool.bytes_used) == ([], 0, 0)


def test_they_survive_a_restart_with_their_numbers_and_the_next_numbers_are_new(reopen: Callable[[], Spool]) -> None:
    first = reopen()
    first.append(windows(1, 3), boot="g-1")
    second = reopen()
    assert (origins(second), seqs(second), second.taken("g-1")) == ([1, 2, 3], [1, 2, 3], 3)
    second.append(windows(4, 4), boot="g-1")
    assert seqs(second) == [1, 2, 3, RESERVE + 1]
    second.ack(RESERVE + 1)
    assert seqs(reopen()) == []
    third = reopen()
    third.append(windows(5, 5), boot="g-1")
    assert seqs(third) == [2 * RESERVE + 1]


def test_a_window_that_is_handed_in_twice_is_spooled_once(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    spool.append(windows(1, 3), boot="g-1")
    assert spool.append(windows(1, 4), boot="g-1") == 1
    spool = reopen()
    assert spool.append(windows(1, 5), boot="g-1") == 1
    assert origins(spool) == [1, 2, 3, 4, 5]
    spool.ack(max(seqs(spool)))
    spool = reopen()
    assert (spool.taken("g-1"), spool.taken("g-2")) == (5, 0)
    # The gateway was restarted: its numbers start again.
    assert spool.append(windows(1, 2), boot="g-2") == 2


def test_beyond_the_bound_the_oldest_go_and_are_counted(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    total = 2_000
    for first in range(1, total, 20):
        spool.append(windows(first, first + 19), boot="g-1")
    left = origins(spool)
    assert left == list(range(left[0], total + 1))
    assert spool.dropped == total - len(left) == left[0] - 1
    assert 7 / 8 * BYTES_MAX - 4096 <= spool.bytes_used <= BYTES_MAX
    assert reopen().dropped == spool.dropped
    assert origins(reopen()) == left


def test_what_was_acknowledged_is_not_counted_as_dropped(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    for first in range(1, 2_000, 20):
        spool.append(windows(first, first + 19), boot="g-1")
        spool.ack(seqs(spool)[-1])
    assert (spool.dropped, spool.pending) == (0, 0)


@pytest.mark.parametrize("seq", [0, 7, 10_000])
def test_an_acknowledgement_frees_only_what_was_handed_out(reopen: Callable[[], Spool], seq: int) -> None:
    spool = reopen()
    spool.append(windows(1, 8), boot="g-1")
    spool.ack(seq)
    assert origins(spool) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_device_that_lost_its_state_learns_from_the_fleet_where_to_count_on(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    spool.append(windows(1, 3), boot="g-1")
    spool.ack(5_000)
    assert (seqs(spool), origins(spool)) == ([5_001, 5_002, 5_003], [1, 2, 3])
    again = reopen()
    assert (seqs(again), again.taken("g-1")) == ([5_001, 5_002, 5_003], 3)
    again.append(windows(4, 4), boot="g-1")
    assert seqs(again)[-1] > 5_003


def test_what_is_acknowledged_is_not_sent_again_under_a_new_number(reopen: Callable[[], Spool]) -> None:
    spool = reopen()
    spool.append(windows(1, 5), boot="g-1")
    spool.peek(3)
    spool.ack(3)
    spool.ack(5_000)
    assert (origins(spool), seqs(spool)) == ([4, 5], [5_001, 5_002])


class CountingDisk(PosixDisk):
    """Counts the bytes that are read."""

    bytes_read = 0

    def read_at(self, path: Path, offset: int, length: int) -> bytes:
        data = super().read_at(path, offset, length)
        self.bytes_read += len(data)
        return data


def test_acknowledged_windows_are_not_read_again(tmp_path: Path) -> None:
    disk = CountingDisk()
    spool = Spool(disk, tmp_path, bytes_max=BYTES_MAX)
    spool.append(windows(1, 40), boot="g-1")
    seen: list[int] = []
    reads = []
    while batch := spool.peek(10):
        seen += [window.started_at_ms for window in batch]
        spool.ack(batch[-1].seq)
        before = disk.bytes_read
        spool.peek(1)
        spool.peek(1)
        reads.append(disk.bytes_read - before)
    assert seen == list(range(1, 41))
    assert reads == sorted(reads, reverse=True)
    assert reads[-2] < reads[0] / 2


def torn(data: bytes) -> bytes:
    return data[:-5]


def cut_at_a_line(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-2])


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (torn, [1, 2, 3, 4, 5]),
        (cut_at_a_line, [1, 2, 3, 4]),
        (flipped, [1, 2, 3, 5, 6]),
        (lambda data: data + data, [1, 2, 3, 4, 5, 6]),
        (lambda data: b"\0" * 100 + data, [2, 3, 4, 5, 6]),
        (lambda data: b"", []),
    ],
    ids=["torn", "truncated", "flipped", "duplicated", "zeros before", "emptied"],
)
def test_damage_costs_the_damaged_line_and_no_number_comes_twice(
    reopen: Callable[[], Spool], tmp_path: Path, harm: Callable[[bytes], bytes], left: list[int]
) -> None:
    spool = reopen()
    spool.append(windows(1, 6), boot="g-1")
    handed = set(seqs(spool))
    (segment,) = (tmp_path / "spool").glob("*.log")
    segment.write_bytes(harm(segment.read_bytes()))
    spool = reopen()
    assert origins(spool) == left
    spool.append(windows(10, 12), boot="g-1")
    assert origins(spool) == [*left, 10, 11, 12]
    assert not handed & set(seqs(spool)[len(left) :])


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_bytes(b"0000 {}"), lambda path: path.write_bytes(b"")]
)
def test_a_lost_state_file_costs_no_window_and_no_number_comes_twice(
    reopen: Callable[[], Spool], tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    spool = reopen()
    spool.append(windows(1, RESERVE + 5), boot="g-1")
    spool.ack(spool.peek(10)[-1].seq)
    handed = set(seqs(spool))
    harm(tmp_path / "spool" / "state")
    spool = reopen()
    assert handed <= set(seqs(spool))
    spool.append(windows(900, 900), boot="g-1")
    assert seqs(spool)[-1] > max(handed)


class FailingDisk(PosixDisk):
    """Writes what it is told, and then says that it could not."""

    failing = False

    def append(self, path: Path, data: bytes) -> None:
        super().append(path, data)
        if self.failing:
            raise DiskFull("cannot append: no space left", where=str(path))

    def remove(self, path: Path) -> None:
        if self.failing:
            raise DiskBroken("cannot remove", where=str(path))
        super().remove(path)


@pytest.mark.parametrize("before", [0, 3])
def test_a_write_that_failed_late_does_not_count_windows_twice(tmp_path: Path, before: int) -> None:
    disk = FailingDisk()
    spool = Spool(disk, tmp_path, bytes_max=BYTES_MAX)
    spool.append(windows(1, before), boot="g-1")
    disk.failing = True
    with pytest.raises(DiskFull):
        spool.append(windows(before + 1, 6), boot="g-1")
    disk.failing = False
    assert spool.taken("g-1") == before
    spool.append(windows(before + 1, 6), boot="g-1")
    for one in (spool, Spool(disk, tmp_path, bytes_max=BYTES_MAX)):
        assert origins(one) == [1, 2, 3, 4, 5, 6]
        assert len(set(seqs(one))) == 6


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_prefix_of_a_write_leaves_whole_windows_in_order(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(PosixDisk(), Path(folder), bytes_max=BYTES_MAX)
        spool.append(windows(1, 4), boot="g-1")
        (segment,) = Path(folder).glob("*.log")
        whole = segment.read_bytes()
        kept = data.draw(st.integers(0, len(whole)))
        segment.write_bytes(whole[:kept])
        spool = Spool(PosixDisk(), Path(folder), bytes_max=BYTES_MAX)
        there = whole[:kept].count(b"\n")
        assert origins(spool) == list(range(1, there + 1))
        # The gateway was never told to forget them, and hands them in again.
        spool.append(windows(1, 4), boot="g-1")
        assert origins(spool) == [1, 2, 3, 4]


def test_a_window_with_a_crash_in_it_comes_back_whole(reopen: Callable[[], Spool]) -> None:
    crash = Window(seq=9, boot="d-1", started_at_ms=1, ended_at_ms=2, elapsed_ms=1, exits={ExitReason.OOM_KILLED: 1})
    reopen().append([crash], boot="g-1")
    (back,) = reopen().peek(1)
    assert (back.exits, back.seq) == ({ExitReason.OOM_KILLED: 1}, 1)


def test_a_bound_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="too small"):
        Spool(PosixDisk(), tmp_path, bytes_max=1_000)
