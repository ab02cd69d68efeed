"""Windows on their way to the fleet: on disk until the fleet says that it has them.

The theory. A spool is a folder of segments and a small state file.

    spool/state                    one record, replaced whole
    spool/<first seq>.log          records, appended; never appended to again after a restart or a failed write

A record is a line: 8 hex digits of CRC-32, a space, JSON. So a torn or damaged line is known as such and costs itself
only. What holds, and what the tests break in order to see it:

- `append` returns when the windows are durable; the gateway is asked to forget them only then. A record carries where
  the window came from (`boot` and sequence of the gateway), so windows that are handed in twice are spooled once.
- A sequence number is never given twice, not even when records were lost: numbers are reserved ahead in the state
  file, and after a restart the next one lies beyond all that were reserved. A gap is no loss; losses are counted.
- Beyond `bytes_max` the oldest segment goes and `dropped` counts its windows. A segment is an eighth of the bound, so
  the newest seven eighths are always there, whole.
- `ack` is durable when it frees a segment. Other acked windows may be sent again after a restart; the fleet knows
  them by their number.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import Disk, DiskBroken
from drupelet.wire.codec import decode_as, encode
from drupelet.wire.fields import Count
from drupelet.wire.telemetry import Window

BYTES_MIN = 64 * 1024
"""Below this a segment could not hold one large window (about 8 KiB)."""
SEGMENTS = 8
BLOCK_BYTES = 4096
"""A file takes at least this much of a disk, so a segment is counted as no smaller."""
RESERVE = 256
"""Numbers reserved at a time: one small write for every 256 windows, and a gap of at most 256 at a restart."""
SKIP = 1 << 20
"""How far the numbers jump when the state file is lost: more than an outage's windows."""
SEQ_MAX = 1 << 52
STATE_NAME = "state"
SEND_BYTES_MAX = 2 * 1024 * 1024
"""Of windows in one poll; half of what a poll may have."""

_NAME = re.compile(r"(\d{16})\.log\Z")


class _Record(msgspec.Struct, frozen=True):
    boot: str
    source: Count
    window: Window


class _State(msgspec.Struct, frozen=True):
    reserved: Count = 0
    written: Count = 0
    acked: Count = 0
    dropped: Count = 0
    boot: str = ""
    source: Count = 0


@dataclass(slots=True)
class _Segment:
    path: Path
    last: int
    count: int
    size: int
    done: int = 0
    """Bytes at the front that hold nothing but acknowledged or damaged lines: not read again."""

    @property
    def cost(self) -> int:
        return max(self.size, BLOCK_BYTES)


def _line(record: msgspec.Struct) -> bytes:
    text = encode(record)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _text(line: bytes) -> bytes | None:
    """Return the JSON of a line, or None if the line is not as it was written."""
    head, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or head != b"%08x" % zlib.crc32(text[:-1]):
        return None
    return text[:-1]


def _record(line: bytes) -> _Record | None:
    text = _text(line)
    try:
        return None if text is None else decode_as(_Record, text)
    except BadInput:
        # Whole, but from a release of another vocabulary: as good as damaged, for us.
        return None


class Spool:
    """Keeps windows until they are acknowledged. For one thread of one process; the agent's lock guards the folder."""

    def __init__(self, disk: Disk, folder: Path, *, bytes_max: int) -> None:
        """Open the spool in `folder` and read what is there; `DiskBroken`, or `BadInput` for a bound too small."""
        if bytes_max < BYTES_MIN:
            raise BadInput(f"a spool of {bytes_max} bytes is too small", fix=f"give it at least {BYTES_MIN}")
        self._disk, self._folder, self._bytes_max = disk, folder, bytes_max
        self._segment_bytes = bytes_max // SEGMENTS
        self._active: _Segment | None = None
        self._handed = 0
        self.damaged = 0
        """Lines found not as they were written when the spool was opened; a torn last line is one."""
        state = self._read_state()
        known = state or _State()
        self._acked, self.dropped = known.acked, known.dropped
        self._written, self._boot, self._source = known.written, known.boot, known.source
        self._segments = [self._scanned(path) for path in self._paths()]
        last = max((segment.last for segment in self._segments), default=0)
        self._reserved = last + SKIP if state is None and self._segments else max(known.reserved, last)
        self._next = self._reserved + 1

    @property
    def pending(self) -> int:
        """Windows that are not acknowledged; after damage or a gap in the numbers, an upper bound."""
        return sum(self._unacked(segment) for segment in self._segments)

    @property
    def bytes_used(self) -> int:
        """Bytes on disk."""
        return sum(segment.cost for segment in self._segments)

    def taken(self, boot: str) -> int:
        """Return the gateway's own sequence up to which its windows are here; 0 for another `boot` of the gateway."""
        return self._source if boot == self._boot else 0

    def append(self, windows: Sequence[Window], *, boot: str) -> int:
        """Durably add a gateway's windows under new numbers, leaving out those that are here; return how many.

        Raises `DiskBroken` or `DiskFull` with what was written before kept: hand the same windows in again.
        """
        fresh = [_Record(boot, window.seq, window) for window in windows if window.seq > self.taken(boot)]
        self._add(fresh)
        return len(fresh)

    def peek(self, limit: int, *, bytes_max: int = SEND_BYTES_MAX) -> tuple[Window, ...]:
        """Return the oldest unacknowledged windows, at most `limit` and about `bytes_max`; they stay."""
        found: list[Window] = []
        sources: dict[str, int] = {}
        total, last = 0, self._acked
        for record, size in self._unacked_records():
            # A write that failed late may have left its records, and its windows were handed in again.
            if record.window.seq <= last or record.source <= sources.get(record.boot, 0):
                continue
            sources[record.boot] = record.source
            total += size
            if len(found) == limit or (found and total > bytes_max):
                break
            last = record.window.seq
            found.append(record.window)
        self._handed = max(self._handed, last)
        return tuple(found)

    def ack(self, seq: int) -> None:
        """Forget windows up to `seq`, of those that were handed out.

        A number that was never given says that this device lost its state and counts from the start again: what is
        here then gets numbers beyond it, or the fleet would take it for what it has.
        """
        if self._next <= seq < SEQ_MAX:
            self._renumber(seq)
            return
        self._acked = max(self._acked, min(seq, self._handed))
        done = [segment for segment in self._segments if segment.last <= self._acked]
        if done:
            self._write_state()
            for segment in done:
                self._forget(segment)

    def _unacked_records(self) -> Iterator[tuple[_Record, int]]:
        for segment in self._segments:
            at_front = True
            for record, size in self._records(segment):
                if record is None or record.window.seq <= self._acked:
                    segment.done += size if at_front else 0
                else:
                    at_front = False
                    yield record, size

    def _unacked(self, segment: _Segment) -> int:
        return max(0, min(segment.count, segment.last - self._acked))

    def _number(self) -> int:
        if self._next > self._reserved:
            self._reserved = self._next + RESERVE - 1
            self._write_state()
        self._next += 1
        return self._next - 1

    def _add(self, records: Sequence[_Record]) -> None:
        lines: list[bytes] = []
        size = 0
        for at, record in enumerate(records):
            numbered = msgspec.structs.replace(record.window, seq=self._number())
            lines.append(_line(msgspec.structs.replace(record, window=numbered)))
            size += len(lines[-1])
            if at == len(records) - 1 or size > self._segment_bytes // 2:
                self._write(lines)
                self._written, self._boot, self._source = self._next - 1, record.boot, record.source
                lines, size = [], 0

    def _write(self, lines: Sequence[bytes]) -> None:
        data = b"".join(lines)
        last = self._next - 1
        self._make_room(len(data))
        segment = self._active
        if segment is None or segment.size + len(data) > self._segment_bytes:
            first = last - len(lines) + 1
            segment = _Segment(self._folder / f"{first:016d}.log", last=first - 1, count=0, size=0)
        # If this raises, the file's end is uncertain: nothing is appended to it again.
        self._active = None
        try:
            self._disk.append(segment.path, data)
        except DiskBroken:
            if segment.count == 0:
                with suppress(DiskBroken):
                    self._disk.remove(segment.path)
            raise
        if segment.count == 0:
            self._segments.append(segment)
        segment.last, segment.count, segment.size = last, segment.count + len(lines), segment.size + len(data)
        self._active = segment

    def _make_room(self, wanted: int) -> None:
        while self._segments and self.bytes_used + max(wanted, BLOCK_BYTES) > self._bytes_max:
            oldest = self._segments[0]
            self.dropped += self._unacked(oldest)
            self._acked = max(self._acked, oldest.last)
            self._write_state()
            self._forget(oldest)

    def _forget(self, segment: _Segment) -> None:
        self._disk.remove(segment.path)
        self._segments.remove(segment)
        if segment is self._active:
            self._active = None

    def _renumber(self, beyond: int) -> None:
        old, boot, source = tuple(self._segments), self._boot, self._source
        kept = [record for record, _ in self._unacked_records()]
        self._next, self._reserved, self._acked, self._handed = beyond + 1, beyond, beyond, 0
        self._active, self._segments = None, []
        self._add(kept)
        self._boot, self._source = boot, source
        self._write_state()
        for segment in old:
            self._disk.remove(segment.path)

    def _paths(self) -> list[Path]:
        return [self._folder / name for name in self._disk.names(self._folder) if _NAME.match(name)]

    def _scanned(self, path: Path) -> _Segment:
        """Measure a segment that an earlier process wrote, and learn from it what the state file does not say yet."""
        segment = _Segment(path, last=0, count=0, size=self._disk.size(path))
        for record, _ in self._records(segment):
            if record is None:
                self.damaged += 1
                continue
            segment.count += 1
            segment.last = max(segment.last, record.window.seq)
            if record.window.seq > self._written:
                self._written, self._boot, self._source = record.window.seq, record.boot, record.source
        return segment

    def _records(self, segment: _Segment) -> Iterator[tuple[_Record | None, int]]:
        try:
            data = self._disk.read_at(segment.path, segment.done, min(segment.size, 2 * self._bytes_max))
        except NotFound:
            return
        for line in data.splitlines(keepends=True):
            yield _record(line), len(line)

    def _read_state(self) -> _State | None:
        try:
            line = self._disk.read_at(self._folder / STATE_NAME, 0, BLOCK_BYTES)
        except NotFound:
            return None
        text = _text(line)
        if text is None:
            self.damaged += 1
            return None
        return decode_as(_State, text, where=str(self._folder / STATE_NAME))

    def _write_state(self) -> None:
        state = _State(
            reserved=self._reserved,
            written=self._written,
            acked=self._acked,
            dropped=self.dropped,
            boot=self._boot,
            source=self._source,
        )
        self._disk.replace(self._folder / STATE_NAME, _line(state))
