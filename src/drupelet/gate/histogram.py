"""Histograms of durations, as they arrive from a device's sketches.

A sketch (DDSketch, relative error 1%) reduces to pairs of (value in seconds, count), one a bucket. Histograms merge by
being concatenated, so a window, a block and a device's whole past have one type, and every score is a sum over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .errors import PairError

Histogram = tuple[tuple[float, int], ...]
"""(value in seconds, count) of each bucket that is not empty, in any order; values may repeat."""

BUCKETS_MAX = 4096
"""A DDSketch at 1% spans microseconds to days in about 1,300 buckets; more than this is not a sketch of ours."""


def checked(histogram: Iterable[tuple[float, int]], *, where: str) -> Histogram:
    """Return the histogram as a tuple, or raise PairError: values must be finite and positive, counts at least 1."""
    buckets = tuple((float(value), int(count)) for value, count in histogram)
    if len(buckets) > BUCKETS_MAX:
        raise PairError(f"{len(buckets)} buckets, at most {BUCKETS_MAX} are allowed", where=where)
    for value, count in buckets:
        if not (math.isfinite(value) and value > 0.0):
            raise PairError(f"{value!r} is not a duration in seconds above 0", where=where)
        if count < 1:
            raise PairError(f"a bucket holds {count} requests, at least 1 is needed", where=where)
    return buckets


def total(histogram: Histogram) -> int:
    """Return how many requests the histogram holds."""
    return sum(count for _, count in histogram)


def mean_log(histogram: Histogram) -> float:
    """Return the mean natural logarithm of the durations. The histogram must not be empty."""
    return sum(count * math.log(value) for value, count in histogram) / total(histogram)


def quantile(histogram: Histogram, fraction: float) -> float:
    """Return the smallest value in seconds at or below which at least `fraction` of the requests lie (not empty)."""
    ordered = sorted(histogram)
    wanted, seen = fraction * total(histogram), 0
    for value, count in ordered:
        seen += count
        if seen >= wanted:
            return value
    return ordered[-1][0]


def mean_log_excess(histogram: Histogram, threshold: float, *, power: int = 1) -> float:
    """Return the mean over all requests of log(duration / threshold) ** power where that is positive, else 0."""
    excess = sum(count * math.log(value / threshold) ** power for value, count in histogram if value > threshold)
    return excess / total(histogram)
