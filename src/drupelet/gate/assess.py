"""From scores to findings: each metric's evidence along the pairs, its effect and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evalue import Floats, Null, log_evidence
from .pairs import Pair
from .policy import GatePolicy, MetricRule
from .rates import interval as rate_interval
from .rates import log_evidence_below
from .scores import Metric, Series, series
from .verdict import Finding

INTERVAL_ALPHA = 0.1
"""Intervals are at 90%, valid at every moment: half the risk on each side, so that an end agrees with evidence 20."""

INTERVAL_POINTS = 161
"""Effects tried when the e-process is inverted; each end is taken one point outwards."""

LOG_EVIDENCE_MAX = 700.0
"""exp() of more overflows; no threshold is anywhere near."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A metric's log evidence after each score: of harm, and against "worse by the margin" (empty without one)."""

    rule: MetricRule
    scores: Series
    harm: Floats
    noninferior: Floats
    noninferior_at: tuple[float, ...]


def gather(policy: GatePolicy, rule: MetricRule, pairs: Sequence[Pair]) -> Evidence:
    """Return the metric's evidence; `pairs` must be in order (`pairs.in_order`)."""
    scores = series(pairs, rule.metric, requests_min=policy.block_requests_min)
    harm = log_evidence(scores.harm, _column([score.value for score in scores.harm]), null=policy.null)[:, 0]
    noninferior: Floats = np.zeros(0)
    at: tuple[float, ...] = ()
    if rule.margin is not None and rule.metric is Metric.ERRORS:
        counts = np.cumsum([[pair.new.errors, pair.new.requests] for pair in pairs] or np.zeros((0, 2)), axis=0)
        noninferior = np.array(
            [log_evidence_below(events=int(k), trials=int(n), cap=rule.margin) for k, n in counts], dtype=np.float64
        )
        at = tuple(pair.complete_at_s for pair in pairs)
    elif rule.margin is not None:
        below = _column([math.log(rule.margin) - score.value for score in scores.effect])
        noninferior, at = log_evidence(scores.effect, below, null=policy.null)[:, 0], scores.effect_at
    return Evidence(rule=rule, scores=scores, harm=harm, noninferior=noninferior, noninferior_at=at)


def finding(policy: GatePolicy, evidence: Evidence, pairs: Sequence[Pair]) -> Finding:
    """Return the metric's numbers for people and for the decision."""
    rule, scores = evidence.rule, evidence.scores
    old_rate: float | None = None
    if rule.metric is Metric.ERRORS:
        effect, low, high, old_rate = _error_rates(pairs)
    elif rule.metric is Metric.SILENCE:
        values = [score.value for score in scores.effect]
        effect, low, high = (math.fsum(values) / len(values) if values else None), None, None
    else:
        effect, low, high = _ratio(scores, policy.null)
    noninferior: float | None = None
    if rule.margin is not None:
        noninferior = linear(evidence.noninferior[-1]) if evidence.noninferior.size else 1.0
    return Finding(
        metric=rule.metric,
        mandatory=rule.mandatory,
        effect=effect,
        low=low,
        high=high,
        old_rate=old_rate,
        evidence=linear(evidence.harm[-1]) if evidence.harm.size else 1.0,
        peak=linear(max(0.0, float(evidence.harm.max()))) if evidence.harm.size else 1.0,
        threshold=rule.threshold,
        noninferior=noninferior,
        needed=policy.pass_evidence,
        margin=rule.margin,
        devices=scores.devices,
        pairs=len(scores.harm),
        requests=scores.requests,
    )


def linear(log_value: float) -> float:
    """Return exp(log_value), held below overflow."""
    return math.exp(min(float(log_value), LOG_EVIDENCE_MAX))


def _column(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def _error_rates(pairs: Sequence[Pair]) -> tuple[float | None, float | None, float | None, float | None]:
    errors, requests = sum(p.new.errors for p in pairs), sum(p.new.requests for p in pairs)
    if requests == 0:
        return None, None, None, None
    low, high = rate_interval(events=errors, trials=requests, alpha=INTERVAL_ALPHA)
    old = sum(p.old.requests for p in pairs)
    return errors / requests, low, high, (sum(p.old.errors for p in pairs) / old if old else None)


def _ratio(scores: Series, null: Null) -> tuple[float | None, float | None, float | None]:
    """Return the median effect as a ratio, and the interval of every ratio that the e-process does not refute."""
    if not scores.effect:
        return None, None, None
    values = _column([score.value for score in scores.effect])
    centre = float(np.median(values))
    reach = float(values.max() - values.min()) + max(1e-3, 0.05 * abs(centre))
    tried = np.linspace(values.min() - reach, values.max() + reach, INTERVAL_POINTS)
    refuted_at = math.log(2.0 / INTERVAL_ALPHA)
    above = log_evidence(scores.effect, values - tried, null=null)[-1] >= refuted_at
    below = log_evidence(scores.effect, tried - values, null=null)[-1] >= refuted_at
    kept = np.flatnonzero(~(above | below))
    if kept.size == 0:  # scores that contradict each other this much bound nothing
        return math.exp(centre), None, None
    low = math.exp(tried[kept[0] - 1]) if kept[0] > 0 else None
    high = math.exp(tried[kept[-1] + 1]) if kept[-1] < tried.size - 1 else None
    return math.exp(min(max(centre, tried[kept[0]]), tried[kept[-1]])), low, high
