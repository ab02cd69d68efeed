"""From pairs of blocks to scores: new minus old, one number a pair and metric.

Whether a pair is usable depends only on the smaller of its two arms, never on which arm that is, so the coin cannot
tell a dropped pair from a kept one and dropping is harmless to the evidence of harm. It could hide harm, though (a
release that answers nothing leaves nothing to compare), so silence is a metric of its own, and PASS counts dropped
pairs against the release (`coverage`).

The tail is scored against the device's own 90th percentile, taken over both arms of its pairs so far, this one
included: symmetric in the arms, so known whichever way the coin fell. Evidence of harm bets on the *squared* excess,
which finds a slow tail with a fifth fewer requests than the plain one; the effect and the margin are in plain excess
over a tenth of the requests, that is the mean factor by which the slowest tenth is slower.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from .evalue import Score
from .histogram import Histogram, mean_log, mean_log_excess, quantile, total
from .pairs import BlockStats, Pair

TAIL_FRACTION = 0.1
"""The slowest tenth of a device's requests is its tail."""

TAIL_BATCH_REQUESTS = 10
"""Requests per arm in one score of the tail's *effect*, so that a slow one is expected in it. With fewer, most scores
are exactly 0 and a few are huge, and the blocks in which nothing slow happened to occur would meet the margin."""


class Metric(Enum):
    """What a release may do worse. Durations are compared as ratios, errors and silence as rates."""

    LATENCY = "latency"
    TAIL = "tail"
    TTFT = "ttft"
    TOKEN_TIME = "token_time"  # noqa: S105  (a duration, not a secret)
    ERRORS = "errors"
    SILENCE = "silence"

    @property
    def is_ratio(self) -> bool:
        """Whether effect and margin are ratios new / old of a duration."""
        return self not in (Metric.ERRORS, Metric.SILENCE)


@dataclass(frozen=True, slots=True)
class Series:
    """A metric's scores in the pairs' order.

    `harm` feeds the evidence of harm; `effect`, in log ratios (rates for errors and silence), feeds the margin and the
    interval. `harm_at` and `effect_at` hold each score's `complete_at_s`. `requests` counts both arms of usable pairs.
    """

    harm: tuple[Score, ...]
    effect: tuple[Score, ...]
    harm_at: tuple[float, ...]
    effect_at: tuple[float, ...]
    devices: int
    requests: int


def usable(pair: Pair, *, requests_min: int) -> bool:
    """Return whether both arms answered at least `requests_min` requests."""
    return min(total(pair.new.latency), total(pair.old.latency)) >= requests_min


def series(pairs: Iterable[Pair], metric: Metric, *, requests_min: int) -> Series:
    """Return the metric's scores over `pairs`, which must be in order (`pairs.in_order`)."""
    build = _Builder(metric, requests_min)
    for pair in pairs:
        build.add(pair)
    return build.done()


def duration(block: BlockStats, metric: Metric) -> Histogram:
    """Return the block's histogram that a ratio metric looks at."""
    match metric:
        case Metric.TTFT:
            return block.ttft
        case Metric.TOKEN_TIME:
            return block.token_time
        case _:
            return block.latency


class _Builder:
    """Walks the pairs once, keeping what the tail needs of each device's past."""

    def __init__(self, metric: Metric, requests_min: int) -> None:
        self.metric = metric
        self.requests_min = requests_min
        self.harm: list[tuple[Score, float]] = []
        self.effect: list[tuple[Score, float]] = []
        self.requests = 0
        self.past: dict[str, Counter[float]] = {}
        self.batches: dict[str, _Batch] = {}

    def add(self, pair: Pair) -> None:
        match self.metric:
            case Metric.SILENCE:
                self._silence(pair)
            case Metric.ERRORS:
                self._errors(pair)
            case _:
                self._duration(pair)

    def done(self) -> Series:
        return Series(
            harm=tuple(score for score, _ in self.harm),
            effect=tuple(score for score, _ in self.effect),
            harm_at=tuple(at for _, at in self.harm),
            effect_at=tuple(at for _, at in self.effect),
            devices=len({score.device for score, _ in self.harm}),
            requests=self.requests,
        )

    def _keep(self, pair: Pair, harm: float, effect: float | None, requests: int) -> None:
        self.harm.append((Score(pair.device, harm), pair.complete_at_s))
        if effect is not None:
            self.effect.append((Score(pair.device, effect), pair.complete_at_s))
        self.requests += requests

    def _silence(self, pair: Pair) -> None:
        quiet_new, quiet_old = (block.requests < self.requests_min for block in (pair.new, pair.old))
        if quiet_new and quiet_old:
            return  # nobody asked: the hour is quiet, not the release
        score = float(quiet_new) - float(quiet_old)
        self._keep(pair, score, score, pair.new.requests + pair.old.requests)

    def _errors(self, pair: Pair) -> None:
        if min(pair.new.requests, pair.old.requests) < self.requests_min:
            return
        score = pair.new.errors / pair.new.requests - pair.old.errors / pair.old.requests
        self._keep(pair, score, score, pair.new.requests + pair.old.requests)

    def _duration(self, pair: Pair) -> None:
        new, old = duration(pair.new, self.metric), duration(pair.old, self.metric)
        answered = total(new), total(old)
        if min(answered) < max(self.requests_min, 1):
            return
        if self.metric is not Metric.TAIL:
            score = mean_log(new) - mean_log(old)
            self._keep(pair, score, score, sum(answered))
            return
        past = self.past.setdefault(pair.device, Counter())
        for value, count in new + old:
            past[value] += count
        threshold = quantile(tuple(past.items()), 1.0 - TAIL_FRACTION)
        plain, squared = (
            (mean_log_excess(new, threshold, power=power) - mean_log_excess(old, threshold, power=power))
            / TAIL_FRACTION
            for power in (1, 2)
        )
        batch = self.batches.setdefault(pair.device, _Batch())
        self._keep(pair, squared, batch.add(plain, *answered), sum(answered))


@dataclass(slots=True)
class _Batch:
    """Gathers a device's tail scores until both arms hold enough requests."""

    new: int = 0
    old: int = 0
    scores: tuple[float, ...] = ()

    def add(self, score: float, new: int, old: int) -> float | None:
        """Return the mean score when the batch is full, and begin the next; else None."""
        self.new, self.old, self.scores = self.new + new, self.old + old, (*self.scores, score)
        if min(self.new, self.old) < TAIL_BATCH_REQUESTS:
            return None
        mean = math.fsum(self.scores) / len(self.scores)
        self.new, self.old, self.scores = 0, 0, ()
        return mean
