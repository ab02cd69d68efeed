"""Counting how often a Pi was throttled, from a sample now and then.

The firmware tells what holds now and what happened since boot. An event is a rising edge of "now"; one between two
samples shows only as a rising edge of "since boot". Both are compared with the last sample of the *same boot*, and the
totals are kept across restarts of the agent, so that a restart neither forgets events nor counts them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import Disk
from drupelet.telemetry.sensors import Sensors, Throttle, Throttling
from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.fields import Count


class ThrottleHistory(Message, frozen=True, kw_only=True):
    """What was counted so far and the sample it was counted up to; stored as JSON by whoever samples."""

    FORMAT: ClassVar[str] = "drupelet.throttle/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.throttle/1"
    boot: str = ""
    now: tuple[Throttle, ...] = ()
    since_boot: tuple[Throttle, ...] = ()
    events: dict[str, Count] = msgspec.field(default_factory=dict)

    def seen(self, boot: str, sample: Throttling) -> ThrottleHistory:
        """Return the history with one more sample; itself if nothing changed, so that it need not be stored."""
        same_boot = boot == self.boot
        before_now = set(self.now) if same_boot else set()
        before_ever = set(self.since_boot) if same_boot else set()
        risen = (sample.now - before_now) | (sample.since_boot - before_ever - before_now)
        events = dict(self.events)
        for reason in risen:
            events[reason.label] = events.get(reason.label, 0) + 1
        made = ThrottleHistory(
            boot=boot,
            now=_ordered(sample.now),
            since_boot=_ordered(sample.since_boot | (before_ever if same_boot else set()) | sample.now),
            events=events,
        )
        return self if made == self else made


def _ordered(reasons: frozenset[Throttle] | set[Throttle]) -> tuple[Throttle, ...]:
    return tuple(sorted(reasons, key=lambda reason: reason.value))


class ThrottleLog:
    """Samples the sensors and keeps the history in a file, written only when it changed."""

    def __init__(self, disk: Disk, path: Path, sensors: Sensors) -> None:
        """Read the history; a damaged one starts again at 0, which counters may do."""
        self._disk, self._path, self._sensors = disk, path, sensors
        try:
            data = disk.read(path, bytes_max=ThrottleHistory.BYTES_MAX)
            self._history = decode(ThrottleHistory, data, where=str(path))
        except (NotFound, BadInput):
            self._history = ThrottleHistory()

    @property
    def events(self) -> dict[str, int]:
        """Events counted so far, by reason; every reason is there."""
        return {reason.label: self._history.events.get(reason.label, 0) for reason in Throttle}

    def sample(self) -> Throttling | None:
        """Look, count, and store what changed. Raises `SensorFailed` or `DiskBroken`."""
        sample = self._sensors.throttling()
        if sample is not None:
            history = self._history.seen(self._sensors.boot_id(), sample)
            if history is not self._history:
                self._disk.replace(self._path, encode(history))
                self._history = history
        return sample
