"""The journal: the single source of truth about a device, durable before anything is done.

A file of JSON lines, `{"crc":"<8 hex>","entry":{...}}`, the CRC-32 over the entry's very bytes. The first line is a
snapshot of the whole state; each further line is one event. The state is the fold of the lines, through the machine
itself, so that what a restart believes is what the machine said. A power cut leaves a prefix of the last line: it is
dropped. Compaction replaces the file, in one durable step, by one snapshot line.

Damage elsewhere (a bad card) cannot be mended: the lines before it are kept, what may only grow (condemned releases,
the newest serial) is salvaged from every line that is whole, and the slots' own sidecars say what they hold.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from drupelet.agent import machine
from drupelet.agent.errors import UnknownTransition
from drupelet.agent.events import QUIET, AnyEvent, Condemning, Event, Noted, name_of
from drupelet.agent.model import RECENT_MAX, DeviceState
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.states import Reason, UpdateState
from drupelet.durable import Disk
from drupelet.wire.codec import decode_as
from drupelet.wire.device_api import DeviceEvent
from drupelet.wire.fields import BootId, Count, EpochMs
from drupelet.wire.orders import CONDEMNED_MAX

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
"""More than any journal can reach between compactions; a larger file is damage."""
COMPACT_BYTES: Final = 512 * 1024
"""Compact past this size: a week of probation on one release, or about twenty updates."""
SEQ_MAX = 1 << 52
KEPT_NAME = "damaged.jsonl"
_LINE_HEAD = b'{"crc":'


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """One event, who saw it when, and where it took the machine."""

    seq: Count
    at_ms: EpochMs
    boot: BootId
    before: UpdateState
    after: UpdateState
    event: AnyEvent


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="snapshot"):
    """The whole state, as of `state.seq`."""

    format: Literal["drupelet.journal/1"] = "drupelet.journal/1"
    state: DeviceState


class _Line(msgspec.Struct, frozen=True):
    crc: str
    entry: msgspec.Raw


def line_of(entry: Entry | Snapshot) -> bytes:
    """Return an entry as one journal line."""
    body = msgspec.json.encode(entry)
    return b'{"crc":"%08x","entry":%s}\n' % (binascii.crc32(body), body)


def entry_of(line: bytes) -> Entry | Snapshot:
    """Return the entry in a line, or raise `BadInput` if the line is not whole."""
    parsed = decode_as(_Line, line, where="journal")
    body = bytes(parsed.entry)
    if parsed.crc != f"{binascii.crc32(body):08x}":
        raise BadInput("the line's checksum is wrong", where="journal")
    return decode_as(Entry | Snapshot, body, where="journal")  # type: ignore[arg-type]


def fold(entries: Iterable[Entry | Snapshot]) -> DeviceState:
    """Return the state that these entries lead to. Raises `UnknownTransition` if they are no history."""
    state = DeviceState()
    for entry in entries:
        state = entry.state if isinstance(entry, Snapshot) else applied(state, entry)
    return state


def applied(state: DeviceState, entry: Entry) -> DeviceState:
    """Return the state after one entry, with the event among the recent ones."""
    after, _ = machine.step(state, entry.event)
    if after.state is not entry.after or entry.seq <= state.seq:
        raise UnknownTransition(f"entry {entry.seq} does not follow", where="journal")
    told = told_of(state, after, entry)
    recent = after.recent if told is None else (*after.recent, told)[-RECENT_MAX:]
    return msgspec.structs.replace(after, seq=entry.seq, recent=recent)


def told_of(before: DeviceState, after: DeviceState, entry: Entry) -> DeviceEvent | None:
    """Return what the fleet and the history are told of an entry; None for time and coins."""
    event = entry.event
    if isinstance(event, QUIET):
        return None
    update = after.update or before.update
    release = update.order.release if update is not None and update.order is not None else ""
    order = getattr(event, "order", None)
    return DeviceEvent(
        seq=entry.seq,
        at_ms=entry.at_ms,
        event=name_of(event),
        before=before.state,
        after=after.state,
        reason=event.reason if event.reason is not Reason.NONE else _inherited(after, event),
        detail=event.detail or (after.detail if _inherited(after, event) is not Reason.NONE else ""),
        release=order.release if order is not None else release,
        order_serial=order.serial if order is not None else after.serial,
    )


def _inherited(after: DeviceState, event: Event) -> Reason:
    """Reverted and taken back say why they were: the reason the recall brought."""
    return after.reason if name_of(event) in ("reverted", "taken_back") else Reason.NONE


@dataclass(frozen=True, slots=True)
class Reading:
    """What a journal file says. `state` is the fold of the whole lines before any damage."""

    state: DeviceState
    whole_bytes: int
    """Up to here the file is good; what follows is a torn tail or damage."""
    total_bytes: int
    damaged: bool
    """Something whole follows something broken: not a torn tail."""
    salvaged: tuple[Entry, ...] = ()
    """Whole entries after the damage, for what may only grow."""


def read(data: bytes) -> Reading:
    """Return what the bytes of a journal file say; never raises for damage."""
    state = DeviceState()
    good = offset = 0
    salvaged: list[Entry | Snapshot] = []
    broken = False
    torn = False
    begun = False
    while offset < len(data):
        end = data.find(b"\n", offset)
        stop = len(data) if end < 0 else end + 1
        entry = _whole(data[offset:stop]) if end >= 0 else None
        if entry is None:
            torn, broken = stop == len(data) and not broken, True
            # Damage may have eaten an end of line: what follows it in the same piece is still whole.
            hidden = data.rfind(_LINE_HEAD, offset + 1, stop)
            found = _whole(data[hidden:stop]) if hidden > 0 else None
            salvaged += [found] if found is not None else []
        elif broken:
            salvaged.append(entry)
        else:
            advanced = _advanced(state, entry, begun=begun)
            if advanced is None:
                broken, torn = True, False
                salvaged.append(entry)
            else:
                state, begun, good = advanced, True, stop
        offset = stop
    damaged = (broken and not (torn and begun)) or bool(salvaged) or not begun
    return Reading(state, good, len(data), damaged, tuple(_entries(salvaged)))


def _whole(line: bytes) -> Entry | Snapshot | None:
    try:
        return entry_of(line)
    except BadInput:
        return None


def _advanced(state: DeviceState, entry: Entry | Snapshot, *, begun: bool) -> DeviceState | None:
    if isinstance(entry, Snapshot):
        return None if begun else entry.state
    if not begun:
        return None
    try:
        return applied(state, entry)
    except UnknownTransition:
        return None


def _entries(found: Iterable[Entry | Snapshot]) -> Iterable[Entry]:
    """Salvaged events; a salvaged snapshot speaks through the condemnations and the serial it holds."""
    for item in found:
        if isinstance(item, Entry):
            yield item
            continue
        state = item.state
        yield Entry(
            seq=state.seq,
            at_ms=0,
            boot="salvaged",
            before=state.state,
            after=state.state,
            event=Condemning(condemned=state.condemned[:CONDEMNED_MAX]),
        )


class Journal:
    """The journal of one device, held open by its one agent."""

    def __init__(self, disk: Disk, folder: Path, *, boot: str, wall_ms: Callable[[], int]) -> None:
        self._disk = disk
        self._path = folder / "log.jsonl"
        self._kept = folder / KEPT_NAME
        self._boot = boot
        self._wall_ms = wall_ms
        self._size = 0
        self.state = DeviceState()

    def open(self, *, rebuild: Callable[[DeviceState], DeviceState]) -> bool:
        """Read the journal, mending what a crash left. Return whether it was damaged or lost.

        `rebuild` makes a state from what the slots themselves say, given what could be salvaged; it is called for a
        damaged journal and for a missing one.
        """
        try:
            data = self._disk.read(self._path, bytes_max=JOURNAL_BYTES_MAX)
        except NotFound:
            data = None
        if data is None:
            self._begin(rebuild(DeviceState()))
            return bool(self.state.slots)
        reading = read(data)
        if not reading.damaged:
            self.state, self._size = reading.state, reading.whole_bytes
            if reading.whole_bytes < reading.total_bytes:
                self._disk.truncate(self._path, reading.whole_bytes)
            return False
        self._disk.replace(self._kept, data)
        self._begin(rebuild(salvage(reading)))
        said = f"the journal was damaged after byte {reading.whole_bytes}; slots were taken from their own records"
        self.append(Noted(reason=Reason.DISK_ERROR, detail=said))
        return True

    def append(self, event: AnyEvent) -> machine.Do | None:
        """Step the machine, make the event durable, then show the new state. Returns what is now to be done.

        Raises `UnknownTransition` or a disk's error; then nothing has changed.
        """
        after, effect = machine.step(self.state, event)
        entry = Entry(
            seq=self.state.seq + 1,
            at_ms=max(0, self._wall_ms()),
            boot=self._boot,
            before=self.state.state,
            after=after.state,
            event=event,
        )
        state = applied(self.state, entry)
        line = line_of(entry)
        self._disk.append(self._path, line)
        self._size += len(line)
        self.state = state
        return effect

    def compact_if_large(self, *, bytes_max: int = COMPACT_BYTES) -> bool:
        """Replace a large file by one snapshot line; return whether it was done."""
        if self._size <= bytes_max:
            return False
        self._begin(self.state)
        return True

    def skip_to(self, seq: int) -> None:
        """Number on past `seq`: a fleet that knows later entries than these would take new ones for old."""
        if self.state.seq < seq < SEQ_MAX:
            self._begin(msgspec.structs.replace(self.state, seq=seq))

    def _begin(self, state: DeviceState) -> None:
        line = line_of(Snapshot(state=state))
        self._disk.replace(self._path, line)
        self.state, self._size = state, len(line)


def salvage(reading: Reading) -> DeviceState:
    """Return what may be believed of a damaged journal: what only grows, and the events told so far."""
    condemned = {(c.release, c.manifest): c for c in reading.state.condemned}
    serial, seq = reading.state.serial, reading.state.seq
    for entry in reading.salvaged:
        seq = max(seq, entry.seq)
        order = getattr(entry.event, "order", None)
        if order is not None and not isinstance(entry.event, Noted):
            serial = max(serial, order.serial)
        if isinstance(entry.event, Condemning):
            condemned |= {(c.release, c.manifest): c for c in entry.event.condemned}
    return DeviceState(
        seq=seq + SALVAGE_SEQ_GAP,
        serial=serial,
        condemned=tuple(condemned.values()),
        held=reading.state.held,
        recent=reading.state.recent,
    )


SALVAGE_SEQ_GAP: Final = 100_000
"""Lines lost to damage had numbers too, which the fleet may know: go on well past them."""
