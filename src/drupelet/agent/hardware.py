"""What this device is, as far as it can be seen: board, memory, cores, firmware, system."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from drupelet.agent.config import HardwareSettings
from drupelet.wire.device_api import Hardware
from drupelet.wire.manifest import FileFormat

GIB = 1 << 30
GATEWAY_RUNS: tuple[FileFormat, ...] = ("gguf",)
"""What the gateway of this version has a back end for. A back end for another format adds it here."""


def read_hardware(
    settings: HardwareSettings,
    *,
    model: Path = Path("/proc/device-tree/model"),
    meminfo: Path = Path("/proc/meminfo"),
    os_release: Path = Path("/etc/os-release"),
) -> Hardware:
    """Return what the device is; what the settings name counts more than what is seen."""
    memory = memory_bytes(_text(meminfo))
    return Hardware(
        board=settings.board or board_of(_text(model), memory),
        architecture=platform.machine()[:32],
        memory_bytes=memory,
        cores=os.cpu_count() or 1,
        npu=settings.npu,
        firmware=settings.firmware,
        os=pretty_name(_text(os_release)) or platform.system()[:128],
        file_formats=GATEWAY_RUNS,
        simulated=settings.simulated,
    )


def board_of(model: str, memory: int) -> str:
    """Return the stratum of a board: `pi5-8gb` for a Raspberry Pi 5 with 8 GB, else the machine's own name."""
    match = re.search(r"Raspberry Pi (\d+|Zero 2|Compute Module \d+)", model)
    if match is None:
        return platform.machine()[:64] or "unknown"
    short = match[1].lower().replace("compute module ", "cm").replace("zero 2", "zero2").replace(" ", "")
    # The firmware keeps some memory for itself: 7.6 of 8 GB are seen.
    size = 1
    while size * GIB < memory:
        size *= 2
    return f"{'' if short.startswith('cm') else 'pi'}{short}-{size}gb"


def memory_bytes(meminfo: str) -> int:
    """Return the machine's memory from `/proc/meminfo`; 0 if it does not say."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def pretty_name(os_release: str) -> str:
    """Return the system's name from `/etc/os-release`."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', os_release, re.MULTILINE)
    return match[1][:128] if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:65_536].decode("utf-8", "replace")
    except OSError:
        return ""
