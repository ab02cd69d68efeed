"""Evidence and interval for the rate of rare events, per request.

A ratio of rare events is out of reach (some 110 of them would be needed to tell 1.25x), so errors pass by an absolute
cap. The e-value below is the likelihood ratio of rates well below the cap to the cap itself; it has mean at most 1
whenever each request, given those before it, fails with probability at least the cap. It says nothing about a release
whose errors come in bursts: one that was below the cap so far, and will be above it later, has been below it so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

BELOW: tuple[tuple[float, float], ...] = ((0.05, 0.5), (0.3, 0.5))
"""(share of the cap, weight) of the rates that the bet against the cap is placed on."""

INTERVAL_STEPS = 60
"""Halvings when an interval's end is searched: 2**-60 is below any rate that matters."""


def log_evidence_below(*, events: int, trials: int, cap: float) -> float:
    """Return the log e-value against "the rate is at least `cap`", 0 < cap < 1."""
    terms = [
        math.log(weight) + events * math.log(share) + (trials - events) * (math.log1p(-share * cap) - math.log1p(-cap))
        for share, weight in BELOW
    ]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def interval(*, events: int, trials: int, alpha: float) -> tuple[float, float]:
    """Return (low, high) for the rate, valid at every moment at level 1 - alpha for independent requests.

    The beta-binomial mixture with both parameters one half, inverted.
    """
    if trials == 0:
        return 0.0, 1.0
    mixture = (
        math.lgamma(events + 0.5) + math.lgamma(trials - events + 0.5) - math.lgamma(trials + 1.0) - math.log(math.pi)
    )
    seen = events / trials

    def refuted(rate: float) -> bool:
        log_likelihood = 0.0
        if events:
            log_likelihood += events * math.log(rate) if rate > 0.0 else -math.inf
        if trials - events:
            log_likelihood += (trials - events) * math.log1p(-rate) if rate < 1.0 else -math.inf
        return mixture - log_likelihood >= -math.log(alpha)

    return _edge(refuted, seen, 0.0), _edge(refuted, seen, 1.0)


def _edge(refuted: Callable[[float], bool], inside: float, outside: float) -> float:
    if not refuted(outside):
        return outside
    for _ in range(INTERVAL_STEPS):
        middle = (inside + outside) / 2.0
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
