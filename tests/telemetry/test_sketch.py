from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.errors import BadInput
from drupelet.telemetry.sketch import LARGEST_S, SMALLEST_S, SketchBuilder, mean, merge, quantile, values
from drupelet.wire.codec import decode_as, encode
from drupelet.wire.telemetry import RELATIVE_ERROR, Sketch

durations = st.lists(st.floats(min_value=SMALLEST_S, max_value=LARGEST_S), min_size=1, max_size=200)
fractions = st.floats(min_value=0.0, max_value=1.0)


def sketch_of(numbers: list[float]) -> Sketch:
    builder = SketchBuilder()
    for number in numbers:
        builder.add(number)
    return builder.sketch()


@given(durations, fractions)
def test_a_quantile_is_within_one_percent_of_the_exact_one(numbers: list[float], fraction: float) -> None:
    exact = sorted(numbers)[max(0, math.ceil(fraction * len(numbers)) - 1)]
    assert quantile(sketch_of(numbers), fraction) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.000001)


@given(durations, durations)
def test_merging_is_the_same_as_counting_everything_in_one_place(left: list[float], right: list[float]) -> None:
    merged, whole = merge([sketch_of(left), sketch_of(right)]), sketch_of(left + right)
    assert (merged.bins, merged.zeros) == (whole.bins, whole.zeros)
    assert merged.sum == pytest.approx(whole.sum)


def test_a_fleet_quantile_is_of_all_requests_and_not_of_devices() -> None:
    quick, slow = [sketch_of([0.2] * 10) for _ in range(49)], sketch_of([2.0] * 500)
    assert quantile(merge([*quick, slow]), 0.95) == pytest.approx(2.0, rel=RELATIVE_ERROR)
    per_device = [quantile(one, 0.95) or 0.0 for one in [*quick, slow]]
    assert sum(per_device) / 50 < 0.25


@pytest.mark.parametrize(("number", "stands_for"), [(0.0, SMALLEST_S), (SMALLEST_S / 2, SMALLEST_S), (1e9, LARGEST_S)])
def test_what_no_clock_measures_is_clamped(number: float, stands_for: float) -> None:
    ((value, count),) = values(sketch_of([number]))
    assert value == pytest.approx(stands_for, rel=RELATIVE_ERROR)
    assert count == 1


@pytest.mark.parametrize("number", [-0.1, math.nan, math.inf])
def test_what_is_not_a_duration_is_refused(number: float) -> None:
    with pytest.raises(BadInput, match="not a duration"):
        SketchBuilder().add(number)


def test_the_widest_sketch_fits_the_wire() -> None:
    steps = 3_000
    widest = sketch_of([SMALLEST_S * (LARGEST_S / SMALLEST_S) ** (step / steps) for step in range(steps + 1)])
    assert decode_as(Sketch, encode(widest)) == widest
    assert len(widest.bins) > 1_300


def test_an_empty_sketch_has_no_quantile_and_no_mean() -> None:
    assert (quantile(Sketch(), 0.5), mean(Sketch()), values(Sketch())) == (None, None, ())


def test_a_percentage_is_not_a_fraction() -> None:
    with pytest.raises(BadInput, match="not a fraction"):
        quantile(Sketch(), 95)
