"""What a policy may say, and what is refused."""

from __future__ import annotations

import json

import pytest

from drupelet.gate import GatePolicy, Kind, Metric, MetricRule, PolicyError
from drupelet.gate.policy import DEFAULT_METRICS

LATENCY = {"alpha": 0.0005, "margin": 1.25, "mandatory": True}


def test_the_default_spends_its_total_and_no_more() -> None:
    assert sum(rule.alpha for rule in GatePolicy().metrics) == pytest.approx(GatePolicy().total_alpha)


def test_a_policy_survives_json() -> None:
    policy = GatePolicy(pairs_min=9, at_deadline=Kind.ROLLBACK)
    assert GatePolicy.parse(json.loads(json.dumps(policy.document()))) == policy


def test_an_empty_document_is_the_default() -> None:
    assert GatePolicy.parse({}) == GatePolicy()


def test_shares_beyond_the_total_are_refused_with_their_sum() -> None:
    with pytest.raises(
        PolicyError, match=r"add up to 0\.0011 \(latency 0\.0006 \+ tail 0\.0005\), more than .* 0\.001"
    ):
        GatePolicy.parse(
            {"metrics": {"latency": {**LATENCY, "alpha": 0.0006}, "tail": {"alpha": 0.0005}}, "total_alpha": 0.001}
        )


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"alpha": 0.001}, "unknown field 'alpha'"),
        ({"design": "cohort"}, "'cohort' is not one of: crossover"),
        ({"null": "none"}, "'none' is not one of: sharp, weak"),
        ({"at_deadline": "pass"}, "at_deadline cannot be pass"),
        ({"at_deadline": "pause"}, "at_deadline cannot be pause"),
        ({"at_deadline": 3}, "is not one of: pass, hold, pause, rollback"),
        ({"total_alpha": 0}, "total_alpha 0 is not a probability"),
        ({"total_alpha": "0.1%"}, "'0.1%' is not a finite number"),
        ({"total_alpha": float("nan")}, "is not a finite number"),
        ({"pairs_min": 0}, "pairs_min is 0, at least 1"),
        ({"pairs_min": 6.5}, "6.5 is not a whole number"),
        ({"pairs_min": True}, "True is not a whole number"),
        ({"pass_evidence": 1}, "pass_evidence 1 must be above 1"),
        ({"coverage": 0.0}, "coverage 0 is not a share"),
        ({"coverage": 95}, "coverage 95 is not a share"),
        ({"deadline_s": -5}, "deadline_s -5 is not within"),
        ({"metrics": []}, "must be a table"),
        ({"metrics": {}}, "no metric is mandatory"),
        ({"metrics": {"vibes": LATENCY}}, "'vibes' is not one of: latency, tail"),
        ({"metrics": {"latency": 1.25}}, "a rule must be a table"),
        ({"metrics": {"latency": {**LATENCY, "p99": 1}}}, "unknown field 'p99'"),
        ({"metrics": {"latency": {**LATENCY, "mandatory": "yes"}}}, "mandatory is 'yes'"),
        ({"metrics": {"latency": {**LATENCY, "margin": 0.25}}}, "margin 0.25 is not a ratio above 1"),
        ({"metrics": {"latency": {**LATENCY, "alpha": 1}}}, "alpha 1 is not a probability below 1"),
        ({"metrics": {"latency": {"alpha": 0.0005, "mandatory": True}}}, "has no margin to prove"),
        ({"metrics": {"errors": {**LATENCY, "margin": 2}}}, "margin 2 is not a rate"),
        ({"metrics": {"silence": {"margin": 0.5}}}, "silence has no margin"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(document: dict[str, object], says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        GatePolicy.parse(document)
    assert says in refused.value.line()


def test_a_metric_with_two_rules_is_refused() -> None:
    with pytest.raises(PolicyError, match="two rules"):
        GatePolicy(metrics=(*DEFAULT_METRICS[:2], MetricRule(Metric.LATENCY)))
