"""The verdict: which one, and whether it says why."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.gate import BlockStats, GateError, GatePolicy, Kind, Metric, MetricRule, PairError, history, judge
from drupelet.gate.policy import DEFAULT_METRICS
from tests.gate.worlds import block, canaries, pair, rollout

LENIENT = GatePolicy(
    metrics=tuple(dataclasses.replace(rule, mandatory=rule.metric is Metric.LATENCY) for rule in DEFAULT_METRICS)
)


def test_a_harmless_release_passes_and_says_what_was_proven() -> None:
    verdict = judge(LENIENT, rollout(1), canaries=canaries(), elapsed_s=80.0)
    assert verdict.kind is Kind.PASS
    assert "proven below 1.25x with evidence" in verdict.reason
    assert "3 of the stage's 3 devices covered" in verdict.reason
    assert verdict.reason.endswith("3 devices, 24 pairs, 480 requests.")


def test_a_harmless_release_passes_on_every_default_metric_with_more_pairs() -> None:
    verdict = judge(GatePolicy(), rollout(2, pairs=16), canaries=canaries(), elapsed_s=160.0)
    assert verdict.kind is Kind.PASS, verdict.reason
    assert {found.metric for found in verdict.findings if found.mandatory and found.proven} == {
        Metric.LATENCY,
        Metric.TAIL,
        Metric.ERRORS,
    }


def test_a_slow_release_is_rolled_back_in_words_and_numbers() -> None:
    verdict = judge(GatePolicy(), rollout(3, slower=2.5, pairs=5), canaries=canaries(), elapsed_s=50.0)
    assert verdict.kind is Kind.ROLLBACK
    latency = next(found for found in verdict.findings if found.metric is Metric.LATENCY)
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 2.5 < latency.high
    assert latency.effect == pytest.approx(2.5, rel=0.15)
    assert verdict.reason.startswith("ROLLBACK: latency is 2.")
    assert "against 2,000 needed" in verdict.reason
    assert verdict.reason.endswith("3 devices, 15 pairs, 300 requests.")


def test_a_rollback_stands_even_if_later_pairs_look_better() -> None:
    slow = rollout(4, slower=2.5, pairs=6)
    better = [
        dataclasses.replace(p, index=p.index + 6, complete_at_s=p.complete_at_s + 60) for p in rollout(5, slower=0.4)
    ]
    assert judge(LENIENT, slow + better, canaries=canaries(), elapsed_s=200.0).kind is Kind.ROLLBACK


def test_a_faster_release_passes() -> None:
    assert judge(LENIENT, rollout(6, slower=0.5), canaries=canaries(), elapsed_s=80.0).kind is Kind.PASS


def test_some_evidence_pauses_and_says_how_much_more_rolls_back() -> None:
    verdict = judge(GatePolicy(), rollout(7, slower=2.5, pairs=3), canaries=canaries(), elapsed_s=30.0)
    assert verdict.kind is Kind.PAUSE
    assert "pauses at 20" in verdict.reason
    assert "more pairs at this effect roll it back" in verdict.wants


def test_a_release_that_fails_requests_is_rolled_back_by_errors() -> None:
    pairs = rollout(8, new_errors=0.6, pairs=10, requests=12)
    verdict = judge(GatePolicy(), pairs, canaries=canaries(), elapsed_s=100.0)
    assert verdict.kind is Kind.ROLLBACK
    assert "of requests fail" in verdict.reason
    assert "0.0% on the old release" in verdict.reason


def test_a_release_that_falls_silent_is_rolled_back_by_its_silence() -> None:
    pairs = [pair("device-0", k, BlockStats(requests=0), block([0.2, 0.3])) for k in range(20)]
    verdict = judge(GatePolicy(), pairs, canaries=canaries(1), elapsed_s=200.0)
    assert verdict.kind is Kind.ROLLBACK
    assert "only the new release fell silent in 100% more of the pairs" in verdict.reason


def test_a_quiet_night_is_neither_harm_nor_proof() -> None:
    pairs = [pair("device-0", k, BlockStats(requests=0), BlockStats(requests=1)) for k in range(20)]
    verdict = judge(GatePolicy(), pairs, canaries=canaries(1), elapsed_s=200.0)
    assert verdict.kind is Kind.HOLD
    assert "20 of 20 pairs could not be compared" in verdict.wants
    assert verdict.pooled == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ([], "the stage has no canary"),
        (canaries(3, silent_s=None), "no telemetry from device-0, device-1, device-2 yet"),
        ([*canaries(2), *canaries(3, silent_s=3000.0)[2:]], "no telemetry from device-2 for 50 min"),
        (canaries(5), "device-3, device-4 have fewer than 2 usable pairs"),
        (canaries(8), "device-3, device-4, device-5 and 2 more have fewer"),
    ],
)
def test_what_was_not_seen_does_not_pass(stage: list, says: str) -> None:
    verdict = judge(LENIENT, rollout(1), canaries=stage, elapsed_s=80.0)
    assert verdict.kind is Kind.HOLD
    assert says in verdict.reason


def test_every_hardware_variant_must_be_covered() -> None:
    other = dataclasses.replace(canaries(4)[3], hardware="pi4-4gb")
    policy = dataclasses.replace(LENIENT, coverage=0.5)
    verdict = judge(policy, rollout(1), canaries=[*canaries(), other], elapsed_s=80.0)
    assert verdict.kind is Kind.HOLD
    assert "no covered canary of hardware 'pi4-4gb'" in verdict.reason


def test_too_few_pairs_or_devices_hold() -> None:
    policy = dataclasses.replace(LENIENT, pairs_min=30, devices_min=4)
    verdict = judge(policy, rollout(1), canaries=canaries(), elapsed_s=80.0)
    assert verdict.kind is Kind.HOLD
    assert "3 devices compared, 4 needed" in verdict.wants
    assert "24 usable pairs so far, 30 needed" in verdict.wants


def test_a_hold_says_about_how_much_more_is_needed() -> None:
    verdict = judge(LENIENT, rollout(1, pairs=1), canaries=canaries(), elapsed_s=10.0)
    assert verdict.kind is Kind.HOLD
    assert "latency is not yet proven to stay below 1.25x: evidence" in verdict.wants
    assert "more pairs at this effect" in verdict.wants


@pytest.mark.parametrize("kind", [Kind.HOLD, Kind.ROLLBACK])
@pytest.mark.parametrize("pairs", [0, 2, 8])
def test_a_deadline_never_passes(kind: Kind, pairs: int) -> None:
    policy = dataclasses.replace(LENIENT, at_deadline=kind, deadline_s=60.0)
    verdict = judge(policy, rollout(1, pairs=pairs), canaries=canaries(), elapsed_s=61.0)
    assert verdict.kind is kind
    assert verdict.expired
    assert "deadline of 60 s is past" in verdict.reason


def test_harm_counts_after_the_deadline_too() -> None:
    policy = dataclasses.replace(LENIENT, deadline_s=10.0)
    verdict = judge(policy, rollout(3, slower=2.5), canaries=canaries(), elapsed_s=80.0)
    assert verdict.kind is Kind.ROLLBACK
    assert not verdict.expired


@given(
    silent=st.lists(st.one_of(st.none(), st.floats(0, 1e5)), max_size=4),
    elapsed=st.floats(0, 1e6),
)
@settings(max_examples=40, deadline=None)
def test_without_pairs_nothing_passes(silent: list[float | None], elapsed: float) -> None:
    stage = [dataclasses.replace(canaries(1)[0], device=f"d{n}", silent_s=age) for n, age in enumerate(silent)]
    verdict = judge(LENIENT, [], canaries=stage, elapsed_s=elapsed)
    assert verdict.kind is Kind.HOLD
    assert verdict.reason


@given(st.permutations(range(18)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_handing_in_does_not_matter(order: list[int]) -> None:
    pairs = rollout(9, pairs=6, slower=1.2)
    shuffled = [pairs[k] for k in order]
    assert judge(LENIENT, shuffled, canaries=canaries(), elapsed_s=60.0) == judge(
        LENIENT, pairs, canaries=canaries(), elapsed_s=60.0
    )


def test_a_pair_handed_in_twice_is_refused() -> None:
    pairs = rollout(1, pairs=1)
    with pytest.raises(PairError, match=r"pair 0 of device-0: the same pair was handed in twice"):
        judge(LENIENT, [*pairs, pairs[0]], canaries=canaries(), elapsed_s=1.0)


@pytest.mark.parametrize("elapsed", [-1.0, float("nan"), float("inf")])
def test_an_impossible_age_is_refused(elapsed: float) -> None:
    with pytest.raises(GateError, match="elapsed_s"):
        judge(LENIENT, [], canaries=canaries(), elapsed_s=elapsed)


def test_a_margin_is_rarely_met_by_a_release_that_exceeds_it() -> None:
    ends = [
        judge(LENIENT, rollout(100 + seed, slower=1.5, noise=0.4, pairs=6), canaries=canaries(), elapsed_s=60.0).kind
        for seed in range(40)
    ]
    assert Kind.PASS not in ends


def test_null_rollouts_are_not_rolled_back() -> None:
    ends = [judge(LENIENT, rollout(500 + seed), canaries=canaries(), elapsed_s=80.0).kind for seed in range(60)]
    assert Kind.ROLLBACK not in ends
    assert ends.count(Kind.PAUSE) <= 6


def test_history_ends_where_the_verdict_stands() -> None:
    pairs = rollout(10, slower=1.6)
    verdict = judge(GatePolicy(), pairs, canaries=canaries(), elapsed_s=80.0)
    moments = history(GatePolicy(), pairs)
    assert [m.at_s for m in moments] == sorted(m.at_s for m in moments)
    for found in verdict.findings:
        mine = [moment for moment in moments if moment.metric is found.metric]
        assert len(mine) == found.pairs
        if mine:
            assert mine[-1].harm == pytest.approx(found.evidence)
            assert max(1.0, *(moment.harm for moment in mine)) == pytest.approx(found.peak)
            assert mine[-1].noninferior == pytest.approx(found.noninferior)


def test_a_watched_metric_without_a_share_never_acts() -> None:
    policy = GatePolicy(metrics=(MetricRule(Metric.LATENCY, margin=1.25, mandatory=True),))
    verdict = judge(policy, rollout(3, slower=3.0, pairs=10), canaries=canaries(), elapsed_s=100.0)
    assert verdict.kind is Kind.HOLD
    assert "at this effect more pairs will not help" in verdict.wants
