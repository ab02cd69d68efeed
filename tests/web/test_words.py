"""Numbers and states in words, the raspberry's geometry, and the chart's data."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.states import RolloutState
from drupelet.fleet.plan import Standing
from drupelet.gate import Kind, Metric
from drupelet.web import words
from drupelet.web.chart import CEILING, FLOOR, POINTS_MAX, evidence_chart
from drupelet.web.picture import RADIUS, STEP, berry, curve
from tests.web.shop import Shop


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"), (0.00002, "20 µs"), (0.0042, "4.2 ms"), (0.182, "182 ms"), (1.4, "1.40 s"), (42.4, "42 s"),
        (600, "10 min"), (3 * 3600, "3 h"), (5 * 86400, "5 days"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(None, "–"), (12, "12 B"), (2_210_000, "2.2 MB"), (8.6e9, "8.6 GB"), (250e6, "250 MB")]
)
def test_sizes(count: float | None, said: str) -> None:
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("at", "said"), [(None, "never"), (100_000, "just now"), (10_000, "90 s ago"), (400_000, "in 5 min")]
)
def test_ago(at: int | None, said: str) -> None:
    assert words.ago(at, 100_000) == said


@given(at=st.integers(min_value=-(2**53), max_value=2**53))
def test_any_time_a_device_claims_can_be_shown(at: int) -> None:
    assert words.clock(at, 1_790_000_000_000)
    assert words.iso(at).endswith("Z")


def test_every_word_of_the_wire_has_a_tone() -> None:
    assert set(words.TONE_OF_ROLLOUT) == {state.value for state in RolloutState}
    assert set(words.TONE_OF_STANDING) == set(words.STANDING_WORDS) == {standing.value for standing in Standing}
    assert set(words.TONE_OF_VERDICT) == {kind.value for kind in Kind}
    assert set(words.METRIC_WORDS) == {metric.value for metric in Metric}


@pytest.mark.parametrize("count", [0, 1, 2, 5, 7, 12, 13, 60, 200])
def test_drupelets_have_their_places_and_do_not_hide_each_other(count: int) -> None:
    fruit = berry(count)
    assert len(set(fruit.places)) == count
    for (ax, ay), (bx, by) in itertools.combinations(fruit.places, 2):
        assert math.dist((ax, ay), (bx, by)) > STEP - 1
    assert all(RADIUS <= x <= fruit.width - RADIUS and RADIUS <= y <= fruit.height - RADIUS for x, y in fruit.places)


def test_a_curve_has_gaps_where_nothing_was_measured() -> None:
    drawn = curve([1.0, None, 3.0, 2.0])
    assert drawn is not None
    assert drawn.path.count("M") == 2
    assert (drawn.low, drawn.high, drawn.last) == (1.0, 3.0, 2.0)
    assert curve([None, 1.0, None]) is None
    assert curve([5.0, 5.0]) is not None


def test_the_chart_draws_the_lines_that_decide(shop: Shop) -> None:
    data = evidence_chart(shop.fleet.reader.rollout(4))
    assert data is not None
    assert (data["leader"], data["rollback"], data["pass"]) == ("latency", 2000.0, 20.0)
    latency = next(c for c in data["curves"] if c["metric"] == "latency")
    assert latency["harm"][-1] > 2000
    assert len(latency["at"]) == len(latency["harm"]) == len(latency["within"]) == 13
    for drawn in data["curves"]:
        assert all(FLOOR <= value <= CEILING for value in drawn["harm"])
        assert len(drawn["at"]) <= POINTS_MAX + 1
    silence = next(c for c in data["curves"] if c["metric"] == "silence")
    assert set(silence["within"]) == {None}


def test_without_evidence_there_is_no_chart(shop: Shop) -> None:
    assert evidence_chart(shop.fleet.reader.rollout(1)) is None
