"""How much memory the demo takes: the proportional set sizes of its whole process tree, sampled."""

from __future__ import annotations

import os
import threading
from pathlib import Path

EVERY_S = 5.0


def tree_bytes(root: int) -> int:
    """Return the memory of a process and all below it, shared pages counted once."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name may hold spaces and brackets: what matters comes after the last closing one.
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    wanted, grown = {root}, True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in wanted} - wanted
        wanted |= below
        grown = bool(below)
    return sum(_pss_bytes(pid) for pid in wanted)


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


class Footprint:
    """Remembers the most that was seen."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="footprint", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.most_bytes = max(self.most_bytes, tree_bytes(os.getpid()))

    def stop(self) -> None:
        """Sample no more."""
        self._stop.set()
        self._thread.join()
