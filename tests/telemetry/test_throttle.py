from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.durable import PosixDisk
from drupelet.telemetry.sensors import PiSensors, Throttling
from drupelet.telemetry.throttle import ThrottleHistory, ThrottleLog
from tests.fakes.fake_pi import FakePi

NONE = {"undervoltage": 0, "frequency_capped": 0, "throttled": 0, "soft_temperature_limit": 0}


def seen(*samples: tuple[str, int]) -> dict[str, int]:
    history = ThrottleHistory()
    for boot, bits in samples:
        history = history.seen(boot, Throttling.of_bits(bits))
    return NONE | history.events


@pytest.mark.parametrize(
    ("samples", "undervoltage"),
    [
        ([("b1", 0x0)], 0),
        ([("b1", 0x1), ("b1", 0x10001), ("b1", 0x10001)], 1),
        ([("b1", 0x10001), ("b1", 0x10000), ("b1", 0x10001)], 2),
        ([("b1", 0x0), ("b1", 0x10000)], 1),
        ([("b1", 0x10000), ("b1", 0x10000)], 1),
        ([("b1", 0x10000), ("b2", 0x0)], 1),
        ([("b1", 0x10000), ("b2", 0x10000)], 2),
        ([("b1", 0x10001), ("b2", 0x10001)], 2),
    ],
    ids=[
        "never",
        "one that lasts is one",
        "comes, goes and comes again",
        "missed between samples",
        "known from before the first sample",
        "a boot clears the bits",
        "again in the next boot",
        "on both sides of a boot",
    ],
)
def test_events_are_rising_edges_within_a_boot(samples: list[tuple[str, int]], undervoltage: int) -> None:
    assert seen(*samples) == NONE | {"undervoltage": undervoltage}


def test_reasons_are_counted_apart() -> None:
    assert seen(("b1", 0x4), ("b1", 0x40005)) == NONE | {"undervoltage": 1, "throttled": 1}


def test_totals_survive_a_restart_and_nothing_is_written_when_nothing_changes(
    pi: FakePi, sensors: PiSensors, tmp_path: Path
) -> None:
    path = tmp_path / "throttle.json"

    def log() -> ThrottleLog:
        return ThrottleLog(PosixDisk(), path, sensors)

    pi.throttled(0x50005)
    first = log()
    first.sample()
    assert first.events == NONE | {"undervoltage": 1, "throttled": 1}
    written = path.stat().st_mtime_ns, path.stat().st_ino
    again = log()
    again.sample()
    assert again.events == first.events
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    path.write_bytes(b"{")
    assert log().events == NONE


def test_a_machine_that_cannot_say_counts_nothing(tmp_path: Path) -> None:
    bare = PiSensors(sys_root=tmp_path, proc_root=tmp_path, vcgencmd=("/nonexistent/vcgencmd",))
    log = ThrottleLog(PosixDisk(), tmp_path / "throttle.json", bare)
    assert log.sample() is None
    assert not (tmp_path / "throttle.json").exists()
