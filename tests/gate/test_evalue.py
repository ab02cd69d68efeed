"""The e-value: exact where enumeration can be exact, properties where it cannot."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.gate.evalue import Null, Score, log_evidence

SIZES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


def evidence(values: list[float], *, devices: list[str] | None = None, null: Null = Null.SHARP) -> np.ndarray:
    names = devices or ["d"] * len(values)
    scores = [Score(name, value) for name, value in zip(names, values, strict=True)]
    return np.exp(log_evidence(scores, np.array(values).reshape(-1, 1), null=null)[:, 0])


UNSIGNED = {
    "equal": [1.0] * 9,
    "growing": [2.0**k for k in range(9)],
    "mostly zero": [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 5.0],
    "wild": [0.01, 40.0, 0.3, 0.002, 7.0, 7.0, 1e-6, 900.0, 0.5],
}


@pytest.mark.parametrize("null", list(Null))
@pytest.mark.parametrize("sizes", UNSIGNED.values(), ids=UNSIGNED.keys())
def test_mean_over_every_sequence_of_coins_is_one_at_every_moment(sizes: list[float], null: Null) -> None:
    devices = ["a", "b", "a", "c", "b", "a", "c", "a", "b"]
    paths = [
        evidence([sign * size for sign, size in zip(signs, sizes, strict=True)], devices=devices, null=null)
        for signs in itertools.product((-1.0, 1.0), repeat=len(sizes))
    ]
    assert np.mean(paths, axis=0) == pytest.approx(np.ones(len(sizes)), abs=1e-9)


def test_the_peak_over_every_sequence_of_coins_respects_its_bound() -> None:
    sizes = [1.0, 0.2, 3.0, 1.0, 1.0, 0.5, 2.0, 1.0, 1.0, 0.1, 4.0]
    peaks = np.array(
        [
            evidence([sign * size for sign, size in zip(signs, sizes, strict=True)]).max()
            for signs in itertools.product((-1.0, 1.0), repeat=len(sizes))
        ]
    )
    for threshold in (2.0, 5.0, 20.0, 100.0):
        assert np.mean(peaks >= threshold) <= 1.0 / threshold
    assert peaks.max() > 100.0


def test_an_adversary_who_sees_the_past_cannot_raise_the_mean() -> None:
    """The next |d| depends on the signs so far: doubled after every loss."""
    ends = []
    for signs in itertools.product((-1.0, 1.0), repeat=10):
        size, values = 1.0, []
        for sign in signs:
            values.append(sign * size)
            size = size * 2.0 if sign < 0 else 1.0
        ends.append(evidence(values)[-1])
    assert np.mean(ends) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("excess", [0.0, 0.05, 0.3])
def test_a_release_beyond_the_margin_never_has_mean_above_one(excess: float) -> None:
    margin = math.log(1.25)
    noise = [0.1, 0.4, 0.02, 0.3, 0.2, 0.15, 0.5, 0.05, 0.1]
    ends = []
    for signs in itertools.product((-1.0, 1.0), repeat=len(noise)):
        scores = [margin + excess + sign * size for sign, size in zip(signs, noise, strict=True)]
        ends.append(evidence([margin - score for score in scores]))
    means = np.mean(ends, axis=0)
    assert (means <= 1.0 + 1e-9).all()
    assert excess == 0.0 or means[-1] < 0.9


@given(SIZES, st.floats(1e-3, 1e3))
def test_units_do_not_matter(values: list[float], unit: float) -> None:
    assert evidence([value * unit for value in values]) == pytest.approx(evidence(values), rel=1e-6)


@given(SIZES, st.data())
def test_a_pair_turned_around_is_evidence_for_the_other_side(sizes: list[float], data: st.DataObject) -> None:
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=len(sizes), max_size=len(sizes)))
    values = [sign * size for sign, size in zip(signs, sizes, strict=True)]
    for_harm, for_gain = evidence(values)[-1], evidence([-value for value in values])[-1]
    assert min(for_harm, for_gain) <= 1.0 + 1e-9
    worse = [abs(value) for value in values]
    assert evidence(worse)[-1] >= for_harm * (1 - 1e-9)


@given(SIZES)
def test_evidence_at_most_doubles_a_pair(sizes: list[float]) -> None:
    assert (evidence(sizes) <= 2.0 ** np.arange(1, len(sizes) + 1) * (1 + 1e-9)).all()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=10), st.integers(1, 9))
def test_later_pairs_never_change_earlier_evidence(values: list[float], cut: int) -> None:
    cut = min(cut, len(values))
    assert evidence(values)[:cut] == pytest.approx(evidence(values[:cut]), rel=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=10), st.floats(0.001, 5), st.integers(0, 9))
def test_a_worse_last_pair_is_never_less_evidence(values: list[float], more: float, at: int) -> None:
    raised = [*values[:-1], values[-1] + more]
    assert evidence(raised)[-1] >= evidence(values)[-1] * (1 - 1e-9)


def test_a_pair_without_a_difference_is_no_evidence() -> None:
    assert evidence([0.0, 0.0]) == pytest.approx([1.0, 1.0])
    assert evidence([1.0, 0.0])[1] == pytest.approx(evidence([1.0])[0])


def test_no_pairs_no_evidence() -> None:
    assert log_evidence([], np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(("pairs", "reached"), [(11, False), (13, True)])
def test_a_plain_effect_reaches_two_thousand_in_twelve_or_thirteen_pairs(pairs: int, reached: bool) -> None:
    assert bool(evidence([1.0] * pairs)[-1] >= 2000.0) is reached


def test_strong_autocorrelation_does_not_break_the_bound() -> None:
    """Blocks drift by a random walk with a trend; only the coin is random to the evidence."""
    rng, crossed, runs = random.Random(7), 0, 1500
    for _ in range(runs):
        level, values = 0.0, []
        for _ in range(20):
            first, level = level, level + rng.gauss(0, 1) + 0.3
            values.append((level - first) * rng.choice((-1.0, 1.0)))
        crossed += bool(evidence(values).max() >= 20.0)
    assert crossed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
