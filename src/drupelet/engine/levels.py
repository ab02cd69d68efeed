"""Which build of `llama-server` a CPU can run, and which of those is the fastest.

The kernel says what a CPU has: on aarch64 in the auxiliary vector (AT_HWCAP, which an emulator fills in for the CPU it
plays, where `/proc/cpuinfo` would tell of the host's), on x86-64 in the flags of `/proc/cpuinfo`. A CPU that cannot be
asked gets the slowest build, which runs everywhere: unknown is not bad, it is slow.

A build lies as `llama-server-<level>` in one folder with the others. `choose` is pure; `find` looks at this machine.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import BadInput, NotFound

PREFIX = "llama-server-"
VARIABLE = "DRUPELET_LLAMA_SERVER"
"""Environment variable that names a `llama-server` or a folder of them, where no setting does."""

_AT_HWCAP = 16
_HWCAP = {1 << 1: "asimd", 1 << 9: "fphp", 1 << 10: "asimdhp", 1 << 20: "asimddp"}
"""Bits of AT_HWCAP on aarch64 (Linux, arm64 ELF hwcaps) under the names `/proc/cpuinfo` gives them."""
_AUXV_BYTES_MAX = 4096
_CPUINFO_BYTES_MAX = 1 << 20


class NoServer(NotFound):
    """There is no `llama-server` that this machine can run where one was named."""


@dataclass(frozen=True, slots=True)
class Level:
    """One build: what it is called, for which machine, and what the CPU must have."""

    name: str
    machine: str
    """As `uname -m` says."""
    needs: frozenset[str]
    boards: str
    """Whose CPUs these are, for people."""

    @property
    def file(self) -> str:
        """The file's name beside the other builds."""
        return PREFIX + self.name


LEVELS = (
    Level("armv8.2-a+dotprod+fp16", "aarch64", frozenset({"asimddp", "fphp", "asimdhp"}), "Raspberry Pi 5"),
    Level("armv8-a", "aarch64", frozenset(), "Raspberry Pi 3 and 4"),
    Level("x86-64-v3", "x86_64", frozenset({"sse4_2", "avx", "avx2", "bmi2", "fma", "f16c"}), "PCs since 2013"),
    Level("x86-64", "x86_64", frozenset(), "any PC"),
)
"""Best first for each machine; the last of a machine needs nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The build to run, and why this one."""

    level: Level | None
    why: str


def choose(machine: str, flags: frozenset[str] | None, present: Collection[str]) -> Choice:
    """Return the best build among the file names in `present` for a CPU with `flags`; None for flags not known."""
    levels = [level for level in LEVELS if level.machine == machine]
    if not levels:
        known = ", ".join(sorted({level.machine for level in LEVELS}))
        return Choice(None, f"{machine or 'an unknown machine'} has no build; there are builds for {known}")
    reasons = []
    for level in levels:
        missing = sorted(level.needs - (flags or frozenset()))
        if level.file not in present:
            reasons.append(f"{level.file} is not there")
        elif not missing:
            said = ", ".join(sorted(level.needs)) or ("its flags are not known" if flags is None else "any CPU")
            return Choice(level, f"{level.name}: {said}")
        else:
            reasons.append(f"{level.name} needs {', '.join(missing)}")
    return Choice(None, "; ".join(reasons))


def find(path: Path, *, machine: str = "", flags: frozenset[str] | None = None) -> tuple[Path, str]:
    """Return the program to run for `path`, a `llama-server` or a folder of builds, and why it.

    `machine` and `flags` default to this machine's. Raises `NoServer`, or `BadInput` if it is not executable.
    """
    why = f"{path} was named"
    if path.is_dir():
        asked = machine or platform.machine()
        known = flags if flags is not None else cpu_flags(asked)
        chosen = choose(asked, known, [one.name for one in path.glob(f"{PREFIX}*")])
        if chosen.level is None:
            raise NoServer(f"no llama-server for this CPU: {chosen.why}", where=str(path), fix="install the runtime")
        path, why = path / chosen.level.file, chosen.why
    if not path.is_file():
        raise NoServer("there is no llama-server", where=str(path), fix=f"mend child.llama_server or ${VARIABLE}")
    if not os.access(path, os.X_OK):
        raise BadInput("this llama-server may not be executed", where=str(path), fix=f"chmod 755 {path}")
    return path, why


def cpu_flags(machine: str, *, proc: Path = Path("/proc")) -> frozenset[str] | None:
    """Return what the kernel says this CPU has, as far as levels ask for it; None if it does not say."""
    try:
        if machine == "aarch64":
            with (proc / "self" / "auxv").open("rb") as file:
                return hwcap_flags(file.read(_AUXV_BYTES_MAX))
        with (proc / "cpuinfo").open("rb") as file:
            return cpuinfo_flags(file.read(_CPUINFO_BYTES_MAX).decode("ascii", "replace"))
    except OSError:
        return None


def hwcap_flags(auxv: bytes) -> frozenset[str] | None:
    """Return the flags in an aarch64 auxiliary vector (pairs of 64-bit words); None if it has no AT_HWCAP."""
    for kind, value in struct.iter_unpack("<QQ", auxv[: len(auxv) // 16 * 16]):
        if kind == _AT_HWCAP:
            return frozenset(name for bit, name in _HWCAP.items() if value & bit)
    return None


def cpuinfo_flags(text: str) -> frozenset[str] | None:
    """Return the flags that *every* CPU in an x86 `/proc/cpuinfo` has; None if it lists none."""
    lines = [line.partition(":") for line in text.splitlines()]
    found = [frozenset(value.split()) for name, _, value in lines if name.strip() == "flags"]
    return frozenset.intersection(*found) if found else None
