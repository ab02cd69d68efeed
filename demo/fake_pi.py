"""A Raspberry Pi's sensors, simulated: a folder that looks like sysfs and procfs, and a `vcgencmd` that reads a file.

Give `sys_root`, `proc_root` and `vcgencmd` to the agent and the gateway, and say `simulated` wherever the device is
shown. Values may be changed at any time while somebody reads them: every file is replaced in one step.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

MIB = 1 << 20


class FakePi:
    """Makes the folder and changes what the sensors say."""

    def __init__(self, folder: Path, *, celsius: float = 48.3, memory_mib: int = 8_192) -> None:
        self.folder = folder
        self.sys_root = folder / "sys"
        self.proc_root = folder / "proc"
        self._throttled = folder / "throttled.txt"
        script = folder / "vcgencmd"
        self.temperature(celsius)
        self.throttled(0)
        self.undervoltage(alarm=False)
        self.memory(total_mib=memory_mib, available_mib=memory_mib * 3 // 4)
        self.boot("3f8e1c52-0000-4000-8000-000000000001", boot_time_s=1_790_000_000)
        _write(script, f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 1\ncat {shlex.quote(str(self._throttled))}\n')
        script.chmod(0o755)
        self.vcgencmd = (str(script),)

    def temperature(self, celsius: float) -> None:
        """Set the processor's temperature."""
        zone = self.sys_root / "class/thermal/thermal_zone0"
        _write(zone / "type", "cpu-thermal\n")
        _write(zone / "temp", f"{round(celsius * 1000)}\n")

    def throttled(self, bits: int) -> None:
        """Set what `vcgencmd get_throttled` says: bits 0 to 3 now, 16 to 19 since boot."""
        _write(self._throttled, f"throttled={bits:#x}\n")

    def undervoltage(self, *, alarm: bool) -> None:
        """Set the kernel's undervoltage alarm."""
        _write(self.sys_root / "class/hwmon/hwmon1/name", "rpi_volt\n")
        _write(self.sys_root / "class/hwmon/hwmon1/in0_lcrit_alarm", f"{int(alarm)}\n")

    def memory(self, *, total_mib: int, available_mib: int, oom_kills: int = 0) -> None:
        """Set the machine's memory."""
        kib = {
            "MemTotal": total_mib * 1024,
            "MemFree": available_mib * 512,
            "MemAvailable": available_mib * 1024,
            "SwapTotal": 0,
            "SwapFree": 0,
        }
        _write(self.proc_root / "meminfo", "".join(f"{name}: {value:>10} kB\n" for name, value in kib.items()))
        _write(self.proc_root / "vmstat", f"pgfault 1000\npgmajfault 20\noom_kill {oom_kills}\n")

    def process(self, pid: int, *, resident_mib: int, cpu_ticks: Mapping[str, int], name: str = "drupelet") -> None:
        """Show a process; `cpu_ticks` holds `user` and `system`."""
        folder = self.proc_root / str(pid)
        _write(folder / "status", f"Name:\t{name}\nVmRSS:\t{resident_mib * 1024} kB\nVmSwap:\t{512} kB\nThreads:\t1\n")
        zeros = "0 " * 10
        _write(folder / "stat", f"{pid} ({name}) S {zeros}{cpu_ticks['user']} {cpu_ticks['system']} 0 0 20 0 1 0\n")

    def boot(self, boot_id: str, *, boot_time_s: int) -> None:
        """Set the id and time of the boot."""
        _write(self.proc_root / "sys/kernel/random/boot_id", f"{boot_id}\n")
        _write(self.proc_root / "stat", f"cpu 1 2 3 4\nbtime {boot_time_s}\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
