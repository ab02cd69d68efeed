"""Answers are judged by what they say, not by how it is spaced."""

from __future__ import annotations

import pytest

from drupelet.core.errors import BadInput
from drupelet.engine.canonical import CHECKS, check, judge
from drupelet.wire.manifest import Expectation


@pytest.mark.parametrize(
    ("answer", "kind", "value", "good"),
    [
        ("We open at 9.", "equals", "we  OPEN at 9.", True),
        ("We open at 9.", "equals", "We open at 8.", False),
        ("We open\n at 9.", "contains", "open at 9", True),
        ("We open at 19.", "contains", "open at 9", False),
        ("We are shut.", "not_contains", "open", True),
        ("We are OPEN.", "not_contains", "open", False),
        ("from 9 to 18", "regex", r"\b9\b.*\b18\b", True),
        ("From 9", "regex", "from", False),
        ("short", "tokens_max", "5", True),
        ("short", "tokens_max", "4", False),
        ("short", "tokens_min", "5", True),
        ("short", "tokens_min", "6", False),
    ],
)
def test_one_expectation(answer: str, kind: str, value: str, good: bool) -> None:
    expectation = Expectation(kind=kind, value=value)  # type: ignore[arg-type]
    check(expectation)
    verdict, why = judge(answer, tokens=5, expectations=[expectation])
    assert verdict is good
    assert good or (kind in why and value in why), "a refusal names the expectation"


def test_all_expectations_must_hold_and_the_first_broken_one_is_named() -> None:
    expectations = [Expectation(kind="contains", value="nine"), Expectation(kind="not_contains", value="closed")]
    assert judge("nine", tokens=1, expectations=expectations)[0]
    verdict, why = judge("closed at nine", tokens=3, expectations=expectations)
    assert (verdict, why) == (False, "'closed at nine' does not satisfy not_contains 'closed'")


@pytest.mark.parametrize("answer", ["", " \n", "x" * 20_000])
def test_nothing_and_far_too_much_are_no_answers(answer: str) -> None:
    assert judge(answer, tokens=1, expectations=[Expectation(kind="not_contains", value="y")])[0] is False


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("regex", "(a+)+b", "repeats a repetition"),
        ("regex", "(", "not a regular expression"),
        ("regex", "x" * 300, "300 characters"),
        ("tokens_max", "many", "tokens_max"),
        ("tokens_min", "-1", "tokens_min"),
        ("contains", "  ", "empty"),
    ],
)
def test_an_expectation_that_cannot_be_applied_is_refused(kind: str, value: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check(Expectation(kind=kind, value=value))  # type: ignore[arg-type]


def test_every_kind_of_the_manifest_has_a_check() -> None:
    import typing

    assert set(CHECKS) == set(typing.get_args(typing.get_type_hints(Expectation)["kind"]))
