"""Rare events: evidence below a cap, and the interval of a rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drupelet.gate.rates import interval, log_evidence_below


@pytest.mark.parametrize("cap", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("true", [1.0, 1.5])
def test_the_mean_at_or_above_the_cap_is_at_most_one(cap: float, true: float) -> None:
    trials = 200
    rate = true * cap
    mean = math.fsum(
        math.comb(trials, k)
        * rate**k
        * (1 - rate) ** (trials - k)
        * math.exp(log_evidence_below(events=k, trials=trials, cap=cap))
        for k in range(trials + 1)
    )
    assert mean <= 1.0 + 1e-9
    assert true > 1.0 or mean == pytest.approx(1.0)


def test_how_many_clean_requests_a_cap_costs() -> None:
    needed = next(n for n in range(1000) if log_evidence_below(events=0, trials=n, cap=0.02) >= math.log(20))
    assert 150 <= needed <= 195


@pytest.mark.parametrize(("events", "trials"), [(0, 50), (3, 50), (50, 50), (1, 100_000)])
def test_an_interval_holds_the_rate_seen_and_narrows(events: int, trials: int) -> None:
    low, high = interval(events=events, trials=trials, alpha=0.05)
    assert 0.0 <= low <= events / trials <= high <= 1.0
    tighter = interval(events=events, trials=trials, alpha=0.3)
    assert low <= tighter[0]
    assert tighter[1] <= high


def test_nothing_tried_bounds_nothing() -> None:
    assert interval(events=0, trials=0, alpha=0.05) == (0.0, 1.0)


def test_the_interval_covers_at_every_moment() -> None:
    rng, missed, runs, rate = np.random.default_rng(3), 0, 120, 0.1
    for _ in range(runs):
        events = np.cumsum(rng.random(120) < rate)
        ends = (interval(events=int(k), trials=n, alpha=0.05) for n, k in enumerate(events, start=1))
        missed += any(not low <= rate <= high for low, high in ends)
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
