"""Sketches of durations: logarithmic bins that merge exactly and answer any quantile within 1%.

The theory (DDSketch, Masson, Rim and Lee, 2019). With gamma = (1 + e) / (1 - e), bin `i` counts the values in
(gamma**(i-1), gamma**i], and 2 * gamma**i / (gamma + 1) is within the relative error `e` of everything in it. Two
sketches merge by adding counts, so the quantile of a fleet is that of all its requests; averaging the quantiles of
devices is not (one slow busy device in fifty moves it by half).

The bins are the wire's own (`wire.telemetry.Sketch`), so nothing is converted on the way, and the few lines below are
all that a device loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from drupelet.core.errors import BadInput
from drupelet.wire.telemetry import GAMMA, Sketch

SMALLEST_S = 1e-6
"""Seconds. What is shorter is counted as `zeros` and read back as this: no clock of ours resolves less."""
LARGEST_S = 1e6
"""Seconds (11 days). What is longer falls into the last bin, so that a sketch has at most 1,383 bins of 2,048."""

_LOG_GAMMA = math.log(GAMMA)


def bin_of(value: float) -> int:
    """Return the bin of a value in seconds, `SMALLEST_S` or more."""
    return math.ceil(math.log(min(value, LARGEST_S)) / _LOG_GAMMA)


def value_of(index: int) -> float:
    """Return the value in seconds that stands for a bin: within 1% of every value in it."""
    return float(2.0 * math.exp(index * _LOG_GAMMA) / (GAMMA + 1.0))


class SketchBuilder:
    """Counts durations one by one. Not safe for threads."""

    __slots__ = ("_bins", "_sum", "_zeros")

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self._zeros = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one duration in seconds; raises `BadInput` unless it is finite and at least 0."""
        if not (math.isfinite(value) and value >= 0.0):
            raise BadInput(f"{value!r} is not a duration in seconds")
        self._sum += value
        if value < SMALLEST_S:
            self._zeros += 1
        else:
            index = bin_of(value)
            self._bins[index] = self._bins.get(index, 0) + 1

    def sketch(self) -> Sketch:
        """Return what was counted so far, bins in ascending order."""
        return Sketch(bins=tuple(sorted(self._bins.items())), zeros=self._zeros, sum=self._sum)


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """Return the sketch of all values of all `sketches`; exact, in any order."""
    bins: dict[int, int] = {}
    zeros, sums = 0, []
    for sketch in sketches:
        zeros += sketch.zeros
        sums.append(sketch.sum)
        for index, count in sketch.bins:
            bins[index] = bins.get(index, 0) + count
    return Sketch(bins=tuple(sorted(bins.items())), zeros=zeros, sum=math.fsum(sums))


def values(sketch: Sketch) -> tuple[tuple[float, int], ...]:
    """Return (value in seconds, count) of every bin that is not empty, ascending, all values above 0."""
    zeros = ((SMALLEST_S, sketch.zeros),) if sketch.zeros else ()
    return zeros + tuple((value_of(index), count) for index, count in sorted(sketch.bins) if count)


def quantile(sketch: Sketch, fraction: float) -> float | None:
    """Return the smallest value in seconds (within 1%) at or below which at least `fraction` of the values lie.

    None when the sketch is empty; raises `BadInput` unless 0 <= fraction <= 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise BadInput(f"{fraction!r} is not a fraction", fix="ask for 0.95, not for 95")
    wanted, seen, last = fraction * sketch.count, 0, None
    for value, count in values(sketch):
        seen, last = seen + count, value
        if seen >= wanted:
            break
    return last


def mean(sketch: Sketch) -> float | None:
    """Return the exact mean in seconds, or None when the sketch is empty."""
    count = sketch.count
    return sketch.sum / count if count else None
