"""The journal: torn tails, damage anywhere, compaction, and nothing shown before it is durable."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.agent import events as e
from drupelet.agent.errors import UnknownTransition
from drupelet.agent.journal import KEPT_NAME, Entry, Journal, Snapshot, entry_of, fold, line_of, read
from drupelet.agent.model import DeviceState
from drupelet.core.errors import BadInput
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.durable import DiskFull
from drupelet.sim.disk import SimDisk
from drupelet.wire.orders import Condemned
from tests.agent.states import order

FOLDER = Path("/state/journal")
LOG = FOLDER / "log.jsonl"
GONE = Condemned(release="kiosk/0.9", manifest="sha256:" + "aa" * 32)


def opened(disk: SimDisk, rebuilt: DeviceState | None = None) -> Journal:
    journal = Journal(disk, FOLDER, boot="b1", wall_ms=lambda: 1_000)
    journal.open(rebuild=lambda salvaged: salvaged if rebuilt is None else rebuilt)
    return journal


def lived() -> tuple[SimDisk, Journal]:
    disk = SimDisk()
    journal = opened(disk)
    journal.append(e.Ordered(order=order(Mode.INSTALL, serial=4)))
    journal.append(e.Condemning(condemned=(GONE,)))
    journal.append(e.Refused(reason=Reason.NO_VARIANT, detail="none"))
    return disk, journal


def data(disk: SimDisk) -> bytes:
    return bytes(disk.files[LOG].data)


def test_a_restart_reads_what_was_written() -> None:
    disk, journal = lived()
    again = opened(disk)
    assert again.state == journal.state
    assert (again.state.state, again.state.serial, again.state.seq) == (UpdateState.FAILED, 4, 3)
    assert [told.event for told in again.state.recent] == ["ordered", "condemning", "refused"]


def test_every_prefix_of_the_file_is_a_history() -> None:
    disk, _ = lived()
    whole = data(disk)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for length in range(ends[0], len(whole) + 1):
        reading = read(whole[:length])
        assert not reading.damaged
        assert reading.whole_bytes == max(end for end in ends if end <= length)


def test_a_torn_tail_is_cut_off_and_the_next_entry_starts_clean() -> None:
    disk, _ = lived()
    del disk.files[LOG].data[-7:]
    journal = opened(disk)
    assert journal.state.state is UpdateState.PREFLIGHT
    journal.append(e.Refused(reason=Reason.NO_DISK))
    assert opened(disk).state == journal.state


@pytest.mark.parametrize("harm", ["flip", "delete", "zero", "duplicate"])
def test_damage_in_the_middle_keeps_what_may_only_grow(harm: str) -> None:
    disk, _ = lived()
    lines = data(disk).splitlines(keepends=True)
    if harm == "flip":
        lines[1] = lines[1].replace(b"install", b"instalk", 1)
    elif harm == "delete":
        del lines[1]
    elif harm == "zero":
        lines[1] = bytes(len(lines[1]))
    else:
        lines.insert(1, lines[1])
    disk.replace(LOG, b"".join(lines))
    rebuilt: list[DeviceState] = []
    journal = Journal(disk, FOLDER, boot="b2", wall_ms=lambda: 0)
    assert journal.open(rebuild=lambda salvaged: rebuilt.append(salvaged) or salvaged)  # type: ignore[func-returns-value]
    assert rebuilt[0].condemned == (GONE,)
    assert rebuilt[0].seq > 3
    assert journal.state.recent[-1].event == "noted"
    assert disk.exists(FOLDER / KEPT_NAME)
    assert opened(disk).state == journal.state


@pytest.mark.parametrize("content", [b"", b"\n", b"garbage\n", b'{"crc":"0","entry":{}}\n', bytes(500)])
def test_a_file_that_is_no_journal_is_damage_not_a_traceback(content: bytes) -> None:
    disk = SimDisk()
    disk.replace(LOG, content)
    assert opened(disk).state.state is UpdateState.IDLE


def test_nothing_is_believed_that_the_disk_did_not_take() -> None:
    disk, journal = lived()
    before = journal.state
    disk.full = True
    with pytest.raises(DiskFull):
        journal.append(e.Ordered(order=order(Mode.INSTALL, serial=9)))
    assert journal.state == before
    disk.full = False
    assert opened(disk).state == before


def test_an_unknown_event_writes_nothing() -> None:
    disk, journal = lived()
    size = disk.size(LOG)
    with pytest.raises(UnknownTransition):
        journal.append(e.Committed())
    assert disk.size(LOG) == size


def test_compaction_keeps_the_state_in_one_line() -> None:
    disk, journal = lived()
    assert not journal.compact_if_large()
    assert journal.compact_if_large(bytes_max=0)
    assert data(disk).count(b"\n") == 1
    assert opened(disk).state == journal.state
    journal.append(e.HoldSet(held=True))
    assert opened(disk).state.held


def test_a_lost_journal_numbers_on_after_what_the_fleet_knows() -> None:
    disk, journal = lived()
    journal.skip_to(900)
    journal.append(e.HoldSet(held=True))
    assert opened(disk).state.seq == 901
    journal.skip_to(5)
    assert journal.state.seq == 901


def test_lines_survive_a_round_trip_and_refuse_a_wrong_checksum() -> None:
    entry = Entry(
        seq=1, at_ms=5, boot="b", before=UpdateState.IDLE, after=UpdateState.IDLE, event=e.Noted(detail="{\n}")
    )
    line = line_of(entry)
    assert entry_of(line) == entry
    assert fold([Snapshot(state=DeviceState()), entry]).recent[0].detail == "{\n}"
    with pytest.raises(BadInput, match="checksum"):
        entry_of(line.replace(b'"at_ms":5', b'"at_ms":6'))
