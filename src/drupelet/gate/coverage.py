"""Whether the stage was seen at all: PASS needs telemetry from the canaries, not merely from some of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import GateError
from .verdict import plural

NAMED_MAX = 3
"""Devices named in a sentence; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A device of the stage. `silent_s` is the age of its newest telemetry in seconds; None: it never sent any."""

    device: str
    hardware: str = ""
    silent_s: float | None = None

    def __post_init__(self) -> None:
        if self.silent_s is not None and not (math.isfinite(self.silent_s) and self.silent_s >= 0.0):
            raise GateError(f"silent_s is {self.silent_s!r}, an age in seconds is needed", where=self.device)


@dataclass(frozen=True, slots=True)
class Seen:
    """How much of the stage was seen, with a sentence for each thing that is missing (empty: nothing is)."""

    covered: int
    expected: int
    missing: tuple[str, ...]


def seen(
    canaries: Iterable[Canary],
    *,
    pairs_of: dict[str, int],
    share: float,
    fresh_s: float,
    device_pairs_min: int,
) -> Seen:
    """Return what of the stage is covered; `pairs_of` counts each device's usable pairs.

    A canary is covered when its telemetry is fresh and it brought enough usable pairs. Every hardware variant among
    the canaries needs at least one that is covered.
    """
    stage = tuple(canaries)
    stale = [c for c in stage if c.silent_s is None or c.silent_s > fresh_s]
    short = [c for c in stage if c not in stale and pairs_of.get(c.device, 0) < device_pairs_min]
    covered = [c for c in stage if c not in stale and c not in short]
    missing: list[str] = []
    if not stage:
        missing.append("the stage has no canary")
    elif len(covered) < share * len(stage) - 1e-9:
        if stale:
            oldest = max((c.silent_s for c in stale if c.silent_s is not None), default=None)
            since = "yet" if oldest is None else f"for {spoken_s(oldest)}"
            missing.append(f"no telemetry from {_names(stale)} {since}")
        if short:
            have = "has" if len(short) == 1 else "have"
            missing.append(f"{_names(short)} {have} fewer than {plural(device_pairs_min, 'usable pair')}")
    bare = sorted({c.hardware for c in stage} - {c.hardware for c in covered})
    missing += [f"no covered canary of hardware {name!r}" for name in bare if name]
    return Seen(covered=len(covered), expected=len(stage), missing=tuple(missing))


def spoken_s(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h"


def _names(canaries: list[Canary]) -> str:
    names = [canary.device for canary in canaries]
    shown, rest = names[:NAMED_MAX], len(names) - NAMED_MAX
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
