"""What was measured: two adjacent blocks on one device, one served by each release, in an order a coin decided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from .errors import PairError
from .histogram import Histogram, checked


class Arm(Enum):
    """Which release serves a block."""

    OLD = "old"
    NEW = "new"

    @property
    def other(self) -> Arm:
        """Return the arm that serves the pair's other block."""
        return Arm.OLD if self is Arm.NEW else Arm.NEW


@dataclass(frozen=True, slots=True)
class BlockStats:
    """One block of one arm, its warm-up already left out by whoever cut the telemetry into blocks.

    `requests` counts every request that ended in the block, `errors` those of them that failed (refused and timed out
    included). The histograms are in seconds over the answered ones: whole request, time to first token, and time per
    output token after the first; the last two may be empty where nothing streams.
    """

    requests: int
    errors: int = 0
    latency: Histogram = ()
    ttft: Histogram = ()
    token_time: Histogram = ()

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= self.requests:
            raise PairError(f"{self.errors} errors in {self.requests} requests cannot be", where="block")
        for name in ("latency", "ttft", "token_time"):
            object.__setattr__(self, name, checked(getattr(self, name), where=f"block {name}"))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two blocks of one device, and which arm the coin put first.

    `index` counts the device's pairs in this rollout from 0. `complete_at_s` is the fleet's own clock (Unix seconds)
    at the moment it had both blocks in hand and closed the pair: it orders the evidence, so a pair is never altered
    afterwards and never gets a time before one already judged. A device's clock must not set it.
    """

    device: str
    index: int
    first: Arm
    new: BlockStats
    old: BlockStats
    complete_at_s: float
    hardware: str = ""

    def __post_init__(self) -> None:
        where = f"pair {self.index} of {self.device or 'a device without a name'}"
        if not self.device:
            raise PairError("a pair belongs to a device", where=where)
        if self.index < 0:
            raise PairError(f"index {self.index} is below 0", where=where)
        if not math.isfinite(self.complete_at_s):
            raise PairError(f"complete_at_s is {self.complete_at_s!r}", where=where)


def in_order(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return the pairs in the one order evidence is folded in; raise PairError when a device hands a pair twice."""
    ordered = tuple(sorted(pairs, key=lambda pair: (pair.complete_at_s, pair.device, pair.index)))
    seen: set[tuple[str, int]] = set()
    for pair in ordered:
        if (pair.device, pair.index) in seen:
            raise PairError(
                "the same pair was handed in twice",
                where=f"pair {pair.index} of {pair.device}",
                fix="close a pair once and store it under (device, index)",
            )
        seen.add((pair.device, pair.index))
    return ordered
