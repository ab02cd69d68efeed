"""From blocks to scores, and the coin that must not be able to bias which pairs count."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.gate import Arm, BlockStats, GateError, Metric, Pair, PairError, coin, flip
from drupelet.gate.histogram import mean_log, mean_log_excess, quantile, total
from drupelet.gate.pairs import in_order
from drupelet.gate.scores import TAIL_BATCH_REQUESTS, series
from tests.gate.worlds import block, pair, rollout


def swapped(given_pair: Pair) -> Pair:
    """The same measurements, had the coin fallen the other way and the release changed nothing."""
    return dataclasses.replace(given_pair, new=given_pair.old, old=given_pair.new, first=given_pair.first.other)


def test_latency_is_the_difference_of_mean_logs() -> None:
    scores = series([pair("d", 0, block([2.0, 2.0]), block([1.0, 1.0]))], Metric.LATENCY, requests_min=2)
    assert [score.value for score in scores.harm] == pytest.approx([math.log(2.0)])
    assert scores.requests == 4


@pytest.mark.parametrize("metric", list(Metric))
def test_turning_every_pair_around_turns_every_score_around(metric: Metric) -> None:
    """What the proof needs: |score|, usability and order are the same whichever way the coins fell."""
    pairs = rollout(3, pairs=6, new_errors=0.3, slower=1.7)
    pairs[4] = dataclasses.replace(pairs[4], new=BlockStats(requests=0))
    there = series(pairs, metric, requests_min=2)
    back = series([swapped(each) for each in pairs], metric, requests_min=2)
    assert [s.value for s in back.harm] == pytest.approx([-s.value for s in there.harm])
    assert [s.device for s in back.harm] == [s.device for s in there.harm]


@given(st.sets(st.integers(0, 11)))
@settings(max_examples=30, deadline=None)
def test_turning_some_pairs_around_changes_only_their_signs(turned: set[int]) -> None:
    pairs = rollout(5, devices=2, pairs=6)
    mixed = [swapped(each) if k in turned else each for k, each in enumerate(pairs)]
    there, back = (series(each, Metric.TAIL, requests_min=2) for each in (pairs, mixed))
    signs = [-1.0 if k in turned else 1.0 for k in range(len(pairs))]
    assert [s.value for s in back.harm] == pytest.approx([c * s.value for c, s in zip(signs, there.harm, strict=True)])


def test_the_tail_sees_what_the_mean_does_not() -> None:
    usual = [1.0 + k / 100 for k in range(20)]
    slow = [*usual[:18], 3.0, 3.0]
    pairs = [pair("d", k, block(slow), block(usual)) for k in range(3)]
    tail = series(pairs, Metric.TAIL, requests_min=2)
    assert all(score.value > 0.5 for score in tail.harm)
    assert tail.effect[0].value == pytest.approx(math.log(3.0 / 1.19), abs=0.1)
    latency = series(pairs, Metric.LATENCY, requests_min=2)
    assert latency.harm[0].value < 0.12


def test_the_tail_s_effect_waits_for_enough_requests() -> None:
    quarter = TAIL_BATCH_REQUESTS // 4 + 1
    pairs = [pair("d", k, block([1.0] * quarter), block([1.0] * quarter)) for k in range(8)]
    tail = series(pairs, Metric.TAIL, requests_min=2)
    assert (len(tail.harm), len(tail.effect)) == (8, 2)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (BlockStats(requests=0), block([1.0, 1.0]), [1.0]),
        (block([1.0, 1.0]), BlockStats(requests=0), [-1.0]),
        (block([1.0, 1.0]), block([1.0, 1.0]), [0.0]),
        (BlockStats(requests=1), BlockStats(requests=0), []),
    ],
)
def test_silence_is_a_score(new: BlockStats, old: BlockStats, expected: list[float]) -> None:
    scores = series([pair("d", 0, new, old)], Metric.SILENCE, requests_min=2)
    assert [score.value for score in scores.harm] == expected


def test_a_metric_that_was_not_measured_has_no_scores() -> None:
    assert series(rollout(1, pairs=2), Metric.TTFT, requests_min=1).harm == ()


@pytest.mark.parametrize("metric", [Metric.TTFT, Metric.TOKEN_TIME])
def test_streaming_metrics_use_their_own_histogram(metric: Metric) -> None:
    fast, slow = ({metric.value: ((value, 5),)} for value in (0.1, 0.4))
    measured = pair("d", 0, BlockStats(5, **slow), BlockStats(5, **fast))
    assert [s.value for s in series([measured], metric, requests_min=2).harm] == pytest.approx([math.log(4.0)])


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"requests": -1}, "cannot be"),
        ({"requests": 1, "errors": 2}, "2 errors in 1 requests"),
        ({"requests": 1, "latency": ((0.0, 1),)}, "not a duration"),
        ({"requests": 1, "latency": ((float("nan"), 1),)}, "not a duration"),
        ({"requests": 1, "ttft": ((1.0, 0),)}, "holds 0 requests"),
        ({"requests": 1, "token_time": ((1.0, 1),) * 5000}, "5000 buckets"),
    ],
)
def test_a_block_that_cannot_be_is_refused(kwargs: dict, says: str) -> None:
    with pytest.raises(PairError, match=says):
        BlockStats(**kwargs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"device": ""}, "belongs to a device"),
        ({"index": -1}, "below 0"),
        ({"complete_at_s": math.inf}, "complete_at_s"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(change: dict, says: str) -> None:
    with pytest.raises(PairError, match=says):
        dataclasses.replace(pair("d", 0, block([1.0]), block([1.0])), **change)


def test_pairs_are_ordered_by_the_fleet_s_clock_then_device() -> None:
    pairs = rollout(1, pairs=3)
    assert in_order(reversed(pairs)) == tuple(pairs)


def test_histograms() -> None:
    histogram = ((1.0, 9), (math.e, 1))
    assert total(histogram) == 10
    assert mean_log(histogram) == pytest.approx(0.1)
    assert quantile(histogram, 0.9) == 1.0
    assert quantile(histogram, 0.91) == math.e
    assert mean_log_excess(histogram, 1.0) == pytest.approx(0.1)


def test_the_coin_is_fair_and_the_same_after_a_restart() -> None:
    seed = bytes(range(32))
    faces = [coin(seed, device=f"device-{n % 5}", index=n) for n in range(2000)]
    assert abs(faces.count(Arm.NEW) - 1000) < 5 * math.sqrt(500)
    assert faces == [coin(seed, device=f"device-{n % 5}", index=n) for n in range(2000)]
    assert faces != [coin(bytes(32), device=f"device-{n % 5}", index=n) for n in range(2000)]


def test_neighbouring_coins_know_nothing_of_each_other() -> None:
    faces = [coin(bytes(range(32)), device="d", index=n) is Arm.NEW for n in range(4000)]
    agree = sum(a is b for a, b in itertools.pairwise(faces))
    assert abs(agree - 2000) < 5 * math.sqrt(1000)


def test_a_flip_takes_one_bit() -> None:
    faces = {flip(random.Random(seed)) for seed in range(20)}
    assert faces == {Arm.NEW, Arm.OLD}


def test_a_short_seed_is_refused() -> None:
    with pytest.raises(GateError, match="8 bytes, at least 16"):
        coin(b"8 bytes!", device="d", index=0)
