"""Selectors: what they match and what they refuse."""

from __future__ import annotations

import pytest

from drupelet.fleet.errors import BadSelector
from drupelet.fleet.selector import Selector, facts

LAB = facts("lab-1", "pi5-8gb", "aarch64", True, {"site": "lab", "tier": "canary", "board": "a lie"})


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("site=lab", True),
        ("site==lab", True),
        ("site = shop", False),
        ("site!=shop", True),
        ("nowhere!=x", True),
        ("board in (pi5-8gb, pi4-8gb)", True),
        ("board notin (pi5-8gb)", False),
        ("nowhere notin (x)", True),
        ("tier", True),
        ("!legacy", True),
        ("!tier", False),
        ("site=lab,board in (pi5-8gb),!legacy", True),
        ("site=lab,tier=stable", False),
        ("device=lab-1,simulated=true", True),
        ("board=a lie", None),
    ],
)
def test_matches(text: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(BadSelector):
            Selector.parse(text)
    else:
        assert Selector.parse(text).matches(LAB) is matches


@pytest.mark.parametrize(
    "text", ["=x", "a=b=c", "a in b", "a in (", "a in ()", "site lab", ",", "a" * 2000, "a,,b", "x in (a;b)"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(BadSelector):
        Selector.parse(text)
