"""The draw: seeded, nested, in proportion; stages as caps."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.fleet.cohort import Candidate, caps, draw, stages
from drupelet.fleet.errors import BadStages

SIZES = st.dictionaries(
    st.sampled_from(["pi5 at lab", "pi4 at shop", "jetson", "pi5 at bar"]), st.integers(1, 40), min_size=1
)


def candidates(sizes: dict[str, int]) -> list[Candidate]:
    return [Candidate(f"{name.replace(' ', '-')}-{i}", name) for name, size in sizes.items() for i in range(size)]


@settings(deadline=None)  # a busy machine is no failure
@given(SIZES, st.text(max_size=20))
def test_every_prefix_is_in_proportion(sizes: dict[str, int], seed: str) -> None:
    order = draw(candidates(sizes), seed=seed)
    assert sorted(order, key=str) == sorted(candidates(sizes), key=str)
    seen: Counter[str] = Counter()
    for place, candidate in enumerate(order, start=1):
        seen[candidate.stratum] += 1
        for name, size in sizes.items():
            assert abs(seen[name] - place * size / len(order)) <= len(sizes)


@settings(deadline=None)  # a busy machine is no failure
@given(SIZES, st.text(max_size=20), st.randoms(use_true_random=False))
def test_the_draw_depends_on_seed_and_names_alone(sizes: dict[str, int], seed: str, random: object) -> None:
    given_order = candidates(sizes)
    shuffled = list(given_order)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert draw(given_order, seed=seed) == draw(shuffled, seed=seed)


def test_seeds_differ() -> None:
    firsts = {draw(candidates({"pi5": 20}), seed=str(seed))[0].device for seed in range(60)}
    assert len(firsts) > 10


@pytest.mark.parametrize(
    ("texts", "devices", "wanted"),
    [
        (("1", "3", "5"), 5, (1, 3, 5)),
        (("1", "3", "5"), 4, (1, 3, 4)),
        (("1%", "5%", "100%"), 10, (1, 10)),
        (("10%", "50%"), 1000, (100, 500)),
        (("7",), 3, (3,)),
        (("33%",), 10, (3,)),
    ],
)
def test_caps(texts: tuple[str, ...], devices: int, wanted: tuple[int, ...]) -> None:
    assert caps(stages(texts), devices) == wanted


@pytest.mark.parametrize("texts", [(), ("0",), ("101%",), ("-1",), ("x",), ("3", "2"), ("1.5",), ("1",) * 17])
def test_bad_stages(texts: tuple[str, ...]) -> None:
    with pytest.raises(BadStages):
        caps(stages(texts), 10)
