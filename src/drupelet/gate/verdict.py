"""What the gate answers: a verdict, its reason, and the numbers it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from .scores import Metric


class Kind(Enum):
    """What should happen to the rollout."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    """Shown to do no harm beyond the margins: go on to the next stage."""
    HOLD = "hold"
    """Not known yet: go on measuring, expose nobody else."""
    PAUSE = "pause"
    """Evidence of harm, not enough to act on: expose nobody else, tell a person."""
    ROLLBACK = "rollback"
    """Shown to do harm: take the release back from every device."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric's numbers.

    `effect`, `low`, `high`: for durations the ratio new / old; for errors the new release's rate, with `old_rate`
    beside it; for silence the share of pairs in which only the new release fell silent less that of the old. The
    interval holds at 90% at every moment; None: not bounded yet. `evidence` is the e-value of harm now, `peak` its
    highest so far, which is what `threshold` (1 / alpha) judges. `noninferior` is the e-value against "worse by the
    margin"; None where there is no margin. `requests` counts both arms.
    """

    metric: Metric
    mandatory: bool
    effect: float | None
    low: float | None
    high: float | None
    old_rate: float | None
    evidence: float
    peak: float
    threshold: float
    noninferior: float | None
    needed: float
    margin: float | None
    devices: int
    pairs: int
    requests: int

    @property
    def condemns(self) -> bool:
        """Whether the evidence of harm ever reached its threshold."""
        return self.peak >= self.threshold

    @property
    def proven(self) -> bool:
        """Whether "worse by the margin" is refuted."""
        return self.noninferior is not None and self.noninferior >= self.needed

    @property
    def name(self) -> str:
        """What the metric is called in a sentence."""
        return "the slowest tenth" if self.metric is Metric.TAIL else self.metric.value.replace("_", " ")

    @property
    def margin_text(self) -> str:
        """The margin as people write it: 1.25x or 2.0%; empty without one."""
        if self.margin is None:
            return ""
        return f"{self.margin:g}x" if self.metric.is_ratio else f"{self.margin:.1%}"

    @property
    def says(self) -> str:
        """The finding in one sentence."""
        return f"{self.measured}; evidence of harm {number(self.peak)}{self._bar()}{self._proof()}"

    @property
    def measured(self) -> str:
        """The effect with its interval in words."""
        if self.effect is None:
            return f"{self.name} is not known yet"
        if self.metric.is_ratio:
            return f"{self.name} is {self.effect:.2f}x the old release's ({self._interval('.2f', 'x')})"
        if self.metric is Metric.ERRORS:
            return (
                f"{self.effect:.1%} of requests fail ({self._interval('.1%', '')}), "
                f"{self.old_rate or 0.0:.1%} on the old release"
            )
        return f"only the new release fell silent in {max(self.effect, 0.0):.0%} more of the pairs than the old"

    def _interval(self, form: str, unit: str) -> str:
        if self.low is None and self.high is None:
            return "too early for an interval"
        if self.low is None:
            return f"90% interval up to {self.high:{form}}{unit}"
        if self.high is None:
            return f"90% interval from {self.low:{form}}{unit}"
        return f"90% interval {self.low:{form}}{unit} to {self.high:{form}}{unit}"

    def _bar(self) -> str:
        return "" if math.isinf(self.threshold) else f" against {number(self.threshold)} needed"

    def _proof(self) -> str:
        if self.noninferior is None:
            return ""
        return f", of staying below {self.margin_text} {number(self.noninferior)} against {number(self.needed)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer. `reason` is a whole sentence with numbers, `wants` what would change a HOLD or PAUSE.

    `pooled` is the evidence of harm over all metrics, which decides PAUSE. `expired`: the stage's deadline is past, so
    waiting longer will not help. Counts are over the whole rollout so far; `unusable` are pairs that could not be
    compared.
    """

    kind: Kind
    reason: str
    wants: str
    expired: bool
    findings: tuple[Finding, ...]
    pooled: float
    devices: int
    pairs: int
    unusable: int
    requests: int


def number(value: float) -> str:
    """Return evidence the way people read it: 3,412 or 14.2 or 20 or 0.03."""
    if value >= 1e9:
        return "over 1,000,000,000"
    if value >= 100.0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1.0 else f"{value:.2f}"


def plural(count: int, noun: str) -> str:
    """Return "1 pair", "2 pairs"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
