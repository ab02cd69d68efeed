from __future__ import annotations

import os
from pathlib import Path

import pytest

from drupelet.telemetry import sensors as module
from drupelet.telemetry.sensors import Memory, PiSensors, Reading, SensorFailed, Throttle, Throttling, read_all
from tests.fakes.fake_pi import MIB, FakePi


def test_a_healthy_pi(pi: FakePi, sensors: PiSensors) -> None:
    pi.process(7, resident_mib=30, cpu_ticks={"user": 150, "system": 50}, name="a (strange) name")
    assert dict(sensors.temperatures()) == {"cpu-thermal": 48.3}
    assert sensors.throttling() == Throttling()
    assert sensors.memory().bytes_by_kind["total"] == 8_192 * MIB
    assert (sensors.memory().oom_kills, sensors.memory().major_page_faults) == (0, 20)
    use = sensors.process(7)
    assert use is not None
    assert (use.resident_bytes, use.swap_bytes, use.cpu_s) == (30 * MIB, 512 * 1024, 200 / os.sysconf("SC_CLK_TCK"))
    assert sensors.boot_id().startswith("3f8e1c52")
    assert sensors.boot_time_s() == 1_790_000_000


@pytest.mark.parametrize(
    ("bits", "now", "since"),
    [
        (0x0, set(), set()),
        (0x1, {Throttle.UNDERVOLTAGE}, set()),
        (0x50005, {Throttle.UNDERVOLTAGE, Throttle.THROTTLED}, {Throttle.UNDERVOLTAGE, Throttle.THROTTLED}),
        (0xA0000, set(), {Throttle.FREQUENCY_CAPPED, Throttle.SOFT_TEMPERATURE_LIMIT}),
        (0xFFFFFFF0, set(), set(Throttle)),
    ],
)
def test_the_firmwares_bits(
    pi: FakePi, sensors: PiSensors, bits: int, now: set[Throttle], since: set[Throttle]
) -> None:
    pi.throttled(bits)
    assert sensors.throttling() == Throttling(frozenset(now), frozenset(since))


def test_undervoltage_is_believed_from_either_side(pi: FakePi, sensors: PiSensors) -> None:
    pi.undervoltage(alarm=True)
    told = sensors.throttling()
    assert told is not None
    assert told.labels == {
        "undervoltage": True,
        "frequency_capped": False,
        "throttled": False,
        "soft_temperature_limit": False,
    }
    no_firmware = PiSensors(sys_root=pi.sys_root, proc_root=pi.proc_root, vcgencmd=("/nonexistent/vcgencmd",))
    assert no_firmware.throttling() == Throttling(frozenset({Throttle.UNDERVOLTAGE}))


def test_what_is_not_there_is_unknown_and_no_error(tmp_path: Path) -> None:
    bare = PiSensors(sys_root=tmp_path, proc_root=tmp_path, vcgencmd=("/nonexistent/vcgencmd",))
    assert (dict(bare.temperatures()), bare.throttling(), bare.memory()) == ({}, None, Memory())
    assert (bare.process(1), bare.boot_id(), bare.boot_time_s()) == (None, "", None)
    assert read_all(bare) == Reading()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/class/thermal/thermal_zone0/temp", "hot"),
        ("sys/class/thermal/thermal_zone0/temp", "nan"),
        ("sys/class/thermal/thermal_zone0/temp", "-273000"),
        ("throttled.txt", "throttled=broken"),
        ("throttled.txt", ""),
        ("throttled.txt", "throttled=0x" + "f" * 40),
        ("proc/meminfo", "MemTotal: lots kB"),
        ("proc/vmstat", "oom_kill many"),
    ],
)
def test_a_broken_sensor_is_unknown_and_named_and_the_others_are_read(
    pi: FakePi, sensors: PiSensors, file: str, text: str
) -> None:
    (pi.folder / file).write_text(text)
    reading = read_all(sensors)
    (sentence,) = reading.failed
    assert Path(file).name in sentence or "vcgencmd" in sentence
    known = [reading.temperature_celsius is not None, bool(reading.throttled), reading.memory_total_bytes is not None]
    assert sorted(known) == [False, True, True]


def test_the_hottest_zone_counts_and_a_zone_that_is_off_does_not(pi: FakePi, sensors: PiSensors) -> None:
    for name, temp in (("thermal_zone1", "71000\n"), ("thermal_zone2", "off\n")):
        zone = pi.sys_root / "class/thermal" / name
        zone.mkdir()
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text(temp)
    assert dict(sensors.temperatures()) == {"cpu-thermal": 48.3, "cpu-thermal-thermal_zone1": 71.0}
    assert read_all(sensors).temperature_celsius == 71.0


@pytest.mark.parametrize("script", ["exec sleep 5", "exit 3", "echo VCHI initialization failed >&2; exit 255"])
def test_a_firmware_that_does_not_answer_does_not_hold_the_agent(
    pi: FakePi, sensors: PiSensors, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(module, "VCGENCMD_S_MAX", 0.2)
    Path(pi.vcgencmd[0]).write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(SensorFailed, match="get_throttled"):
        sensors.throttling()


def test_a_real_linux_answers() -> None:
    here = PiSensors()
    use = here.process(os.getpid())
    assert use is not None
    assert use.resident_bytes > MIB
    assert here.memory().bytes_by_kind["available"] > MIB
