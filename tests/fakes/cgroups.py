"""A memory cgroup of a given size, version 1 or 2, for what is spawned inside the block. Needs root."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup and the names of its files."""

    folder: Path
    limit: str
    peak: str
    failures: str

    def peak_bytes(self) -> int:
        """Return the most that was charged to it."""
        return int((self.folder / self.peak).read_text())

    def hit(self) -> int:
        """Return how often the limit was reached: pages were given back then, or somebody was killed."""
        text = (self.folder / self.failures).read_text()
        found = [line.split()[-1] for line in text.splitlines() if line.startswith("max ") or line.isdecimal()]
        return int(found[0]) if found else 0


def available() -> bool:
    """Whether a memory cgroup can be made here."""
    base = _base()
    if base is None:
        return False
    probe = base / f"drupelet-probe-{os.getpid()}"
    try:
        probe.mkdir()
        (probe / _names(base)[0]).write_text(str(1 << 30))
        probe.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Group]:
    """Move this process into a new cgroup of `limit_bytes` until it has spawned another one there.

    A spawned process is charged from its first page on. This one leaves at once: memory that it takes meanwhile would
    count, and the kernel might choose it to be killed.
    """
    base = _base()
    assert base is not None
    limit, peak, failures = _names(base)
    group = Group(base / f"drupelet-{os.getpid()}-{limit_bytes}", limit, peak, failures)
    group.folder.mkdir()
    try:
        (group.folder / limit).write_text(str(limit_bytes))
        members, ended = group.folder / "cgroup.procs", threading.Event()
        members.write_text(str(os.getpid()))

        def leave() -> None:
            while len(members.read_text().split()) < 2 and not ended.wait(0.002):
                pass
            (base / "cgroup.procs").write_text(str(os.getpid()))

        watching = threading.Thread(target=leave)
        watching.start()
        try:
            yield group
        finally:
            ended.set()
            watching.join()
    finally:
        group.folder.rmdir()


def _base() -> Path | None:
    if (ROOT / "memory").is_dir():
        return ROOT / "memory"
    return ROOT if (ROOT / "memory.max").exists() or (ROOT / "cgroup.controllers").exists() else None


def _names(base: Path) -> tuple[str, str, str]:
    if base.name == "memory":
        return "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"
    return "memory.max", "memory.peak", "memory.events"
