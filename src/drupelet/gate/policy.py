"""A gate policy: what may roll a release back and at what risk, and what a release must prove to pass.

Every metric's rule names its share of the stated total of false rollbacks per rollout; evidence of harm must reach
1 / share. Shares that add up to more than the total are refused. All durations are in seconds.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TypeVar

from .errors import PolicyError
from .evalue import Null
from .scores import Metric
from .verdict import Kind

SHARES_SLACK = 1e-9
"""Relative room for decimal shares that add up in binary: 0.0005 + 0.0002 + ... must not be refused for an ulp."""

MARGIN_RATIO_MAX = 10.0
ELAPSED_MAX_S = 90 * 24 * 3600.0


class Design(Enum):
    """How the release is compared."""

    CROSSOVER = "crossover"
    """Every canary serves both releases in turn; coins decide the order."""


@dataclass(frozen=True, slots=True)
class MetricRule:
    """One metric's share of the risk, and its margin.

    `alpha` is the probability this metric may roll back a release that changes nothing (0: it never rolls back).
    `margin` is what the release must prove to stay below: a ratio above 1 for durations, the new release's own rate
    between 0 and 1 for errors. A `mandatory` metric must prove it before PASS.
    """

    metric: Metric
    alpha: float = 0.0
    margin: float | None = None
    mandatory: bool = False

    def __post_init__(self) -> None:
        where = f"policy metric {self.metric.value}"
        if not 0.0 <= self.alpha < 1.0:
            raise PolicyError(f"alpha {self.alpha:g} is not a probability below 1", where=where)
        if self.mandatory and self.margin is None:
            raise PolicyError("a mandatory metric has no margin to prove", where=where, fix="state its margin")
        if self.margin is None:
            return
        if self.metric is Metric.SILENCE:
            raise PolicyError("silence has no margin: coverage asks for telemetry instead", where=where)
        if self.metric.is_ratio and not 1.0 < self.margin <= MARGIN_RATIO_MAX:
            raise PolicyError(
                f"margin {self.margin:g} is not a ratio above 1 and at most {MARGIN_RATIO_MAX:g}",
                where=where,
                fix='write 1.25 for "a quarter slower"',
            )
        if not self.metric.is_ratio and not 0.0 < self.margin < 1.0:
            raise PolicyError(f"margin {self.margin:g} is not a rate between 0 and 1", where=where)

    @property
    def threshold(self) -> float:
        """Return the evidence that rolls back: 1 / alpha, infinite without a share."""
        return 1.0 / self.alpha if self.alpha else math.inf


DEFAULT_METRICS: tuple[MetricRule, ...] = (
    MetricRule(Metric.LATENCY, alpha=0.0005, margin=1.25, mandatory=True),
    MetricRule(Metric.TAIL, alpha=0.0002, margin=1.25, mandatory=True),
    MetricRule(Metric.TTFT, alpha=0.00005, margin=1.25),
    MetricRule(Metric.TOKEN_TIME, alpha=0.00005, margin=1.25),
    MetricRule(Metric.ERRORS, alpha=0.0001, margin=0.02, mandatory=True),
    MetricRule(Metric.SILENCE, alpha=0.0001),
)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """How releases are judged. The field names are those of the policy file."""

    total_alpha: float = 0.001
    """The most that all rules together may roll back a harmless release, per rollout (a probability)."""
    design: Design = Design.CROSSOVER
    null: Null = Null.SHARP
    metrics: tuple[MetricRule, ...] = field(default=DEFAULT_METRICS)
    pause_evidence: float = 20.0
    """Evidence of harm, over all metrics by their shares, at which the rollout stops growing: at most 1 harmless
    release in `pause_evidence` ever pauses."""
    pass_evidence: float = 20.0
    """Evidence against "worse by the margin" that every mandatory metric needs."""
    pairs_min: int = 6
    devices_min: int = 1
    device_pairs_min: int = 2
    """Usable pairs each of the stage's canaries must bring before it counts as covered."""
    block_requests_min: int = 2
    """Answered requests per block below which a pair is not compared."""
    coverage: float = 0.95
    """Share of the stage's canaries that must be covered, each with telemetry no older than `fresh_s`."""
    usable_min: float = 0.8
    """Share of all pairs that must have been comparable before PASS."""
    fresh_s: float = 900.0
    deadline_s: float = 12 * 3600.0
    at_deadline: Kind = Kind.HOLD
    """HOLD or ROLLBACK when the stage's time is up without proof. A deadline's ROLLBACK is outside `total_alpha`."""

    def __post_init__(self) -> None:
        self._check_shares()
        for name in ("pause_evidence", "pass_evidence"):
            if not 1.0 < getattr(self, name) < math.inf:
                raise PolicyError(f"{name} {getattr(self, name):g} must be above 1", where="policy")
        for name in ("pairs_min", "devices_min", "device_pairs_min", "block_requests_min"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise PolicyError(f"{name} is {getattr(self, name)}, at least 1 is needed", where="policy")
        for name in ("coverage", "usable_min"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise PolicyError(f"{name} {getattr(self, name):g} is not a share above 0", where="policy")
        for name in ("fresh_s", "deadline_s"):
            if not 0.0 < getattr(self, name) <= ELAPSED_MAX_S:
                raise PolicyError(
                    f"{name} {getattr(self, name):g} is not within 0..{ELAPSED_MAX_S:g} s", where="policy"
                )
        if self.at_deadline not in (Kind.HOLD, Kind.ROLLBACK):
            raise PolicyError(
                f"at_deadline cannot be {self.at_deadline.value}: time alone proves nothing",
                where="policy",
                fix='use "hold" or "rollback"',
            )

    def _check_shares(self) -> None:
        if not 0.0 < self.total_alpha < 1.0:
            raise PolicyError(f"total_alpha {self.total_alpha:g} is not a probability", where="policy")
        names = [rule.metric for rule in self.metrics]
        if len(set(names)) != len(names):
            raise PolicyError("a metric has two rules", where="policy", fix="give each metric one rule")
        if not any(rule.mandatory for rule in self.metrics):
            raise PolicyError(
                "no metric is mandatory, so nothing would have to be proven before PASS",
                where="policy",
                fix="make at least one metric mandatory",
            )
        spent = math.fsum(rule.alpha for rule in self.metrics)
        if spent > self.total_alpha * (1.0 + SHARES_SLACK):
            shares = " + ".join(f"{rule.metric.value} {rule.alpha:g}" for rule in self.metrics if rule.alpha)
            raise PolicyError(
                f"the rules' shares add up to {spent:g} ({shares}), more than total_alpha {self.total_alpha:g}",
                where="policy",
                fix="lower shares, or state the larger total",
            )

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> GatePolicy:
        """Return the policy a decoded document (JSON or TOML) describes; raise PolicyError on anything unknown."""
        values: dict[str, object] = {}
        defaults = cls()
        known = {item.name for item in fields(cls)}
        for name, value in document.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                fix = f"did you mean {near[0]!r}?" if near else "see docs/gate.md for the fields"
                raise PolicyError(f"unknown field {name!r}", where="policy", fix=fix)
            default = getattr(defaults, name)
            if name == "metrics":
                values[name] = _metrics(value)
            elif isinstance(default, Enum):
                values[name] = _choice(type(default), value, where=f"policy {name}")
            elif isinstance(default, int):
                values[name] = _whole(value, where=f"policy {name}")
            else:
                values[name] = _number(value, where=f"policy {name}")
        return cls(**values)  # type: ignore[arg-type]  # each value was just converted to its field's type

    def document(self) -> dict[str, object]:
        """Return the policy as plain data that `parse` reads back to an equal policy."""
        out: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            out[item.name] = value.value if isinstance(value, Enum) else value
        out["metrics"] = {
            rule.metric.value: {
                "alpha": rule.alpha,
                **({} if rule.margin is None else {"margin": rule.margin}),
                "mandatory": rule.mandatory,
            }
            for rule in self.metrics
        }
        return out


def _metrics(value: object) -> tuple[MetricRule, ...]:
    if not isinstance(value, Mapping):
        raise PolicyError("metrics must be a table from metric to rule", where="policy metrics")
    return tuple(metric_rule(str(name), rule) for name, rule in value.items())


def metric_rule(name: str, document: object) -> MetricRule:
    """Return one metric's rule as a policy file writes it; raise PolicyError on anything unknown."""
    where = f"policy metric {name}"
    metric = _choice(Metric, name, where=where)
    if not isinstance(document, Mapping):
        raise PolicyError("a rule must be a table", where=where)
    unknown = set(map(str, document)) - {"alpha", "margin", "mandatory"}
    if unknown:
        raise PolicyError(f"unknown field {min(unknown)!r}", where=where, fix="a rule has alpha, margin, mandatory")
    mandatory = document.get("mandatory", False)
    if not isinstance(mandatory, bool):
        raise PolicyError(f"mandatory is {mandatory!r}, true or false is needed", where=where)
    margin = document.get("margin")
    return MetricRule(
        metric,
        alpha=_number(document.get("alpha", 0.0), where=where),
        margin=None if margin is None else _number(margin, where=where),
        mandatory=mandatory,
    )


Choice = TypeVar("Choice", bound=Enum)


def _choice(kind: type[Choice], value: object, *, where: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(item.value) for item in kind)
        raise PolicyError(f"{value!r} is not one of: {known}", where=where) from None


def _number(value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PolicyError(f"{value!r} is not a finite number", where=where)
    return float(value)


def _whole(value: object, *, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(f"{value!r} is not a whole number", where=where)
    return value
