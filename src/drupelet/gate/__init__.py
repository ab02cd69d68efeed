"""The statistics that judge a release. Pure: what was measured goes in, a verdict with its reason comes out.

    coins   decides, on record, which release serves first          (flip, coin)
    pairs   what was measured                                       (Pair, BlockStats, Arm)
    scores  new minus old, one number a pair and metric             (Metric)
    evalue  evidence that only the coins can move                   (Null)
    rates   the same for rare events under an absolute cap
    policy  what may roll back, at what risk, and what to prove     (GatePolicy, MetricRule)
    judging the verdict                                             (judge, history)

Reads no clock, draws nothing, opens nothing. The theory is at the head of `evalue`.
"""

from __future__ import annotations

from .coins import coin, flip
from .coverage import Canary
from .errors import GateError, PairError, PolicyError
from .evalue import Null
from .histogram import Histogram
from .judging import Moment, history, judge
from .pairs import Arm, BlockStats, Pair
from .policy import Design, GatePolicy, MetricRule
from .scores import Metric
from .verdict import Finding, Kind, Verdict

__all__ = [
    "Arm",
    "BlockStats",
    "Canary",
    "Design",
    "Finding",
    "GateError",
    "GatePolicy",
    "Histogram",
    "Kind",
    "Metric",
    "MetricRule",
    "Moment",
    "Null",
    "Pair",
    "PairError",
    "PolicyError",
    "Verdict",
    "coin",
    "flip",
    "history",
    "judge",
]
