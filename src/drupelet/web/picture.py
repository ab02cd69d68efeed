"""The raspberry (one drupelet a device) and small curves, as SVG geometry. Pure; lengths are SVG user units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RADIUS = 20.0
STEP = 2 * RADIUS - 2.0
"""Drupelets touch and overlap a little, as they do."""
LEAF = 26.0


@dataclass(frozen=True, slots=True)
class Berry:
    """Places of the drupelets, and the picture's size."""

    places: tuple[tuple[float, float], ...]
    width: float
    height: float


_SMALL: dict[int, tuple[int, ...]] = {4: (1, 2, 1), 7: (2, 3, 2), 8: (2, 3, 2, 1), 12: (3, 4, 3, 2)}
"""Small fruits that look better than what the rule makes. Neighbouring rows differ by one, or they would overlap."""


def shape(count: int) -> tuple[int, ...]:
    """Return the width of each row, from the top, of the smallest fruit with room for `count` drupelets."""
    if count in _SMALL:
        return _SMALL[count]
    widest = 1
    while sum(_pointed(widest)) < count:
        widest += 1
    return _pointed(widest)


def _pointed(widest: int) -> tuple[int, ...]:
    """Wide above and pointed below; large ones have a shoulder above the widest row."""
    down = tuple(range(widest, 0, -1))
    return down if widest < 5 else (widest - 1, *down)


def berry(count: int) -> Berry:
    """Return where the drupelets of `count` devices lie; a row that is not full is filled from its middle."""
    widths, left = shape(count), count
    width = (max(widths) - 1) * STEP + 2 * (RADIUS + 2)
    lift = STEP * math.sqrt(3) / 2
    places: list[tuple[float, float]] = []
    for number, row in enumerate(widths):
        offsets = sorted((column - (row - 1) / 2 for column in range(row)), key=abs)[:left]
        left -= len(offsets)
        y = LEAF + RADIUS + number * lift
        places += [(round(width / 2 + offset * STEP, 1), round(y, 1)) for offset in sorted(offsets)]
    height = max((y for _, y in places), default=LEAF) + RADIUS + 4
    return Berry(tuple(places), round(width, 1), round(height, 1))


@dataclass(frozen=True, slots=True)
class Curve:
    """A small curve in a box of 300 by 60: SVG path data (gaps where nothing was measured) and its extremes."""

    path: str
    low: float
    high: float
    last: float


def curve(values: Sequence[float | None], *, width: float = 300.0, height: float = 60.0) -> Curve | None:
    """Return values, oldest first, as a curve; None when fewer than two were measured."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    low, high = min(known), max(known)
    spread = (high - low) or 1.0
    step = width / (len(values) - 1)
    parts, drawing = [], False
    for index, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        y = height - 3 - (value - low) / spread * (height - 6)
        parts.append(f"{'L' if drawing else 'M'}{index * step:.1f} {y:.1f}")
        drawing = True
    return Curve(" ".join(parts), low, high, known[-1])
