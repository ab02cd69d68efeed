"""What a device can feel: heat, power, memory. A port, and its adapter for a Raspberry Pi (and any other Linux).

Nothing here raises for a sensor that is not there: a machine without `vcgencmd` is no Pi, and unknown is a value
(None or an empty mapping). What is there but cannot be read raises `SensorFailed`, so that a collector can say so.

    Unavailable (core)
    `- SensorFailed       a sensor is there and did not answer, or not in its own format
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from drupelet.core.errors import Unavailable

VCGENCMD_S_MAX = 2.0
"""The firmware answers in milliseconds; a wedged mailbox must not wedge the agent."""
READ_BYTES_MAX = 64 * 1024
CELSIUS_MIN, CELSIUS_MAX = -60.0, 200.0
"""What windows may carry; a broken sensor says -273 or 6,000."""

_THROTTLED = re.compile(r"throttled=0x([0-9a-fA-F]{1,8})\s*\Z")


class SensorFailed(Unavailable):
    """A sensor is there and did not answer, or not in its own format."""


class Throttle(Enum):
    """Why a Pi slows down: the value is the bit in `vcgencmd get_throttled`; 16 higher it says "since boot"."""

    UNDERVOLTAGE = 0
    FREQUENCY_CAPPED = 1
    THROTTLED = 2
    SOFT_TEMPERATURE_LIMIT = 3

    @property
    def label(self) -> str:
        """`undervoltage`: its name in metrics and windows."""
        return self.name.lower()


SINCE_BOOT_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Throttling:
    """What `vcgencmd get_throttled` says."""

    now: frozenset[Throttle] = frozenset()
    since_boot: frozenset[Throttle] = frozenset()

    @classmethod
    def of_bits(cls, bits: int) -> Throttling:
        """Read the firmware's bit field; bits we do not know are left out."""
        return cls(
            frozenset(reason for reason in Throttle if bits >> reason.value & 1),
            frozenset(reason for reason in Throttle if bits >> (reason.value + SINCE_BOOT_SHIFT) & 1),
        )

    @property
    def labels(self) -> dict[str, bool]:
        """Every reason and whether it holds now, as windows and status carry it."""
        return {reason.label: reason in self.now for reason in Throttle}


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory, from `/proc/meminfo` and `/proc/vmstat`. Bytes by kind (`total`, `available`, ...)."""

    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)
    oom_kills: int | None = None
    major_page_faults: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process uses. Bytes, and CPU seconds since it began."""

    resident_bytes: int
    swap_bytes: int
    cpu_s: float


class Sensors(Protocol):
    """What the rest of Drupelet may ask of the machine it runs on."""

    def temperatures(self) -> Mapping[str, float]:
        """Degrees Celsius by sensor; empty where there is none."""
        ...

    def throttling(self) -> Throttling | None:
        """What holds the machine back; None where nobody can say."""
        ...

    def memory(self) -> Memory:
        """The machine's memory."""
        ...

    def process(self, pid: int) -> ProcessUse | None:
        """What a process uses; None if there is no such process (any more)."""
        ...

    def boot_id(self) -> str:
        """Changes with every boot; empty where nobody can say."""
        ...

    def boot_time_s(self) -> int | None:
        """Unix time of the boot, as this machine's clock has it."""
        ...


class PiSensors:
    """Implements `Sensors` with sysfs, procfs and the firmware's `vcgencmd`. Roots are arguments, so that they can be
    a folder of a test or of the demo."""

    def __init__(
        self,
        *,
        sys_root: Path = Path("/sys"),
        proc_root: Path = Path("/proc"),
        vcgencmd: Sequence[str] = ("vcgencmd",),
    ) -> None:
        self._sys, self._proc, self._vcgencmd = sys_root, proc_root, tuple(vcgencmd)

    def temperatures(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        failed: SensorFailed | None = None
        for zone in sorted((self._sys / "class/thermal").glob("thermal_zone*")):
            try:
                kind = _read(zone / "type").strip() or zone.name
                # Zones of one type (as on a board with several) keep their own names.
                name = kind if kind not in found else f"{kind}-{zone.name}"
                if text := _read(zone / "temp"):
                    found[name] = _celsius(text, zone / "temp")
            except SensorFailed as error:
                # A zone that is switched off answers with an error; another one may know.
                failed = error
        if failed and not found:
            raise failed
        return found

    def throttling(self) -> Throttling | None:
        told = self._firmware_throttling()
        alarm = self._undervoltage_alarm()
        if told is None:
            # Without the firmware's word, the kernel's alarm still knows of undervoltage.
            return None if alarm is None else Throttling(frozenset({Throttle.UNDERVOLTAGE} if alarm else ()))
        return Throttling(told.now | {Throttle.UNDERVOLTAGE}, told.since_boot) if alarm else told

    def memory(self) -> Memory:
        where = self._proc / "meminfo"
        kinds: dict[str, int] = {}
        for line in _read(where).splitlines():
            name, _, value = line.partition(":")
            if kind := _MEMORY_KINDS.get(name):
                kinds[kind] = int(_number(value.strip().removesuffix("kB"), where)) * 1024
        stat = dict(line.split(None, 1) for line in _read(self._proc / "vmstat").splitlines() if " " in line)
        oom, faults = stat.get("oom_kill"), stat.get("pgmajfault")
        where = self._proc / "vmstat"
        return Memory(
            kinds,
            None if oom is None else int(_number(oom, where)),
            None if faults is None else int(_number(faults, where)),
        )

    def process(self, pid: int) -> ProcessUse | None:
        folder = self._proc / str(pid)
        status, stat = _read(folder / "status"), _read(folder / "stat")
        if not status or not stat:
            return None
        kib = dict(_FIELD_KIB.findall(status))
        # The command's name may hold spaces and brackets: fields count from the last one; utime and stime are next.
        fields = stat.rpartition(")")[2].split()
        ticks = sum(_number(text, folder / "stat") for text in fields[11:13])
        return ProcessUse(
            int(kib.get("VmRSS", "0")) * 1024,
            int(kib.get("VmSwap", "0")) * 1024,
            ticks / os.sysconf("SC_CLK_TCK"),
        )

    def boot_id(self) -> str:
        return _read(self._proc / "sys/kernel/random/boot_id").strip()

    def boot_time_s(self) -> int | None:
        for line in _read(self._proc / "stat").splitlines():
            if line.startswith("btime "):
                return int(_number(line.split()[1], self._proc / "stat"))
        return None

    def _firmware_throttling(self) -> Throttling | None:
        command = (*self._vcgencmd, "get_throttled")
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=VCGENCMD_S_MAX, check=False
            )
        except FileNotFoundError:
            return None
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
            raise SensorFailed(f"did not answer: {error}", where=" ".join(command)) from error
        match = _THROTTLED.match(done.stdout)
        if done.returncode or match is None:
            said = (done.stderr or done.stdout)[:200].strip() or "nothing"
            raise SensorFailed(f"exited with {done.returncode} and said {said!r}", where=" ".join(command))
        return Throttling.of_bits(int(match[1], 16))

    def _undervoltage_alarm(self) -> bool | None:
        for folder in sorted((self._sys / "class/hwmon").glob("hwmon*")):
            if _read(folder / "name").strip() == "rpi_volt":
                return _read(folder / "in0_lcrit_alarm").strip() == "1"
        return None


_FIELD_KIB = re.compile(r"^(VmRSS|VmSwap):\s*(\d+) kB$", re.MULTILINE)
_MEMORY_KINDS = {
    "MemTotal": "total",
    "MemFree": "free",
    "MemAvailable": "available",
    "Cached": "cached",
    "SwapTotal": "swap_total",
    "SwapFree": "swap_free",
}


def _read(path: Path) -> str:
    """Return a small file's text; empty if it is not there, `SensorFailed` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(READ_BYTES_MAX).decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return ""
    except OSError as error:
        raise SensorFailed(f"cannot be read: {error.strerror}", where=str(path)) from error


def _number(text: str, where: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SensorFailed(f"{text.strip()[:40]!r} is not a number", where=str(where))
    return value


def _celsius(text: str, where: Path) -> float:
    value = _number(text, where) / 1000
    if not CELSIUS_MIN <= value <= CELSIUS_MAX:
        raise SensorFailed(f"{value} degrees Celsius is no temperature of a working board", where=str(where))
    return value


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at everything that decides whether an update may go on, or travels in windows and status."""

    temperature_celsius: float | None = None
    """The hottest sensor."""
    throttled: Mapping[str, bool] = field(default_factory=dict)
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    failed: tuple[str, ...] = ()
    """What could not be read, one sentence each. What failed is unknown, never fine."""


def read_all(sensors: Sensors) -> Reading:
    """Look once at heat, power and memory; a sensor that fails leaves its value unknown and says so."""
    failed: list[str] = []
    temperatures: Mapping[str, float] = {}
    throttling: Throttling | None = None
    memory = Memory()
    try:
        temperatures = sensors.temperatures()
    except SensorFailed as error:
        failed.append(error.line())
    try:
        throttling = sensors.throttling()
    except SensorFailed as error:
        failed.append(error.line())
    try:
        memory = sensors.memory()
    except SensorFailed as error:
        failed.append(error.line())
    return Reading(
        max(temperatures.values(), default=None),
        throttling.labels if throttling else {},
        memory.bytes_by_kind.get("total"),
        memory.bytes_by_kind.get("available"),
        tuple(failed),
    )
