"""Checks: what a recipe asks of a model beyond its canonical prompts, in groups that have budgets.

Canonical prompts travel to the device and are judged there with the same code (`engine.canonical`). Checks stay in the
forge, so they may use what a device has not: a JSON schema, a language detector, an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.engine.canonical import check as check_canonical
from drupelet.wire.fields import NameText
from drupelet.wire.manifest import Expectation, Part
from drupelet.wire.places import Path
from drupelet.wire.problems import Problem

PROMPTS_MAX = 500
SECRET_CHARACTERS_MIN = 6
"""A shorter secret would be found by chance."""
CANONICAL = "canonical"
"""The group of the canonical prompts; it needs no budget, for all of them must pass."""

Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=8_000)]
Kind = Literal[
    "equals",
    "contains",
    "not_contains",
    "regex",
    "tokens_max",
    "tokens_min",
    "characters_max",
    "json_schema",
    "language",
    "refusal",
    "semantic",
]
_CODES = (
    "af ar bg bn ca cs da de el en es et eu fa fi fr ga gl he hi hr hu id it ja ko lt lv mk ms nl no pl pt ro ru sk sl "
    "sq sr sv sw ta th tr uk ur vi zh"
)
LANGUAGES = frozenset(_CODES.split(" "))
"""Language codes (ISO 639-1) that a check may ask for."""


class CheckExpectation(Part, frozen=True, kw_only=True):
    """One thing a good answer satisfies."""

    kind: Kind
    value: Annotated[str, Meta(max_length=8_000)]
    at_least: Share = 0.7
    """For `semantic`: the least cosine of answer and `value`."""


class Check(Part, frozen=True, kw_only=True):
    """Prompts that share a group and what a good answer to any of them is."""

    id: NameText
    group: NameText
    prompts: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=PROMPTS_MAX)]
    system: Annotated[str, Meta(max_length=8_000)] = ""
    """What the model is told first."""
    secrets: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    """Parts of `system` or the prompts that must not come out again."""
    canaries: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    """Texts of the training data that must never come out."""
    tokens_max: Annotated[int, Meta(ge=1, le=4096)] = 64
    expect: Annotated[tuple[CheckExpectation, ...], Meta(max_length=16)] = ()


class GroupBudget(Part, frozen=True, kw_only=True):
    """What a group of checks is held to, for each variant."""

    pass_min: Share = 1.0
    """Least share of the group's prompts that must be answered well. 0 reports and decides nothing."""
    drop_max: Share | None = None
    """Most that the share may fall from the release that is replaced. None leaves that to the statistics: a fall that
    chance does not explain is always refused."""
    drop_upper_max: Share | None = None
    """Most that the upper end of the fall's confidence interval may be: evidence that nothing was lost, not silence."""


def check_problems(checks: Sequence[Check], groups: Mapping[str, GroupBudget]) -> Iterator[Problem]:
    """Yield what the types cannot say: what could not be judged, or would be judged against nothing."""
    known = {one.group for one in checks}
    for name in groups:
        if name not in known:
            what = f"groups.{name} is a budget for a group that no check is in"
            fix = f"groups here: {', '.join(sorted(known)) or 'none'}"
            yield Problem(path=("groups", name), what=what, fix=fix)
    if sum(len(one.prompts) for one in checks) > PROMPTS_MAX:
        yield Problem(path=("checks",), what=f"the checks have more than {PROMPTS_MAX} prompts in all")
    for index, one in enumerate(checks):
        at: Path = ("checks", index)
        if one.id in [other.id for other in checks[:index]]:
            yield Problem(path=at, what=f"two checks are called {one.id!r}")
        if one.group == CANONICAL:
            what = f"check {one.id} is in the group {CANONICAL!r}, which the canonical prompts are"
            yield Problem(path=(*at, "group"), what=what, fix="choose another name")
        if not one.expect and not one.secrets and not one.canaries:
            fix = "give it expect, secrets or canaries"
            yield Problem(path=at, what=f"check {one.id} expects nothing", fix=fix)
        for number, expectation in enumerate(one.expect):
            try:
                _check_expectation(one.id, expectation)
            except BadInput as error:
                yield Problem(path=(*at, "expect", number, "value"), what=error.what, fix=error.fix)
        for table, texts in (("secrets", one.secrets), ("canaries", one.canaries)):
            for number, text in enumerate(texts):
                if sum(character.isalnum() for character in text) < SECRET_CHARACTERS_MIN:
                    what = f"check {one.id}: {table} of fewer than {SECRET_CHARACTERS_MIN} letters and digits"
                    yield Problem(path=(*at, table, number), what=what, fix="it would be found by chance, or never")
        for number, secret in enumerate(one.secrets):
            if secret not in one.system and not any(secret in prompt for prompt in one.prompts):
                what = f"check {one.id}: a secret is neither in its system text nor in a prompt"
                yield Problem(path=(*at, "secrets", number), what=what, fix="plant it, or call it a canary")


def _check_expectation(check: str, expectation: CheckExpectation) -> None:
    kind, value = expectation.kind, expectation.value
    if kind == "json_schema":
        _schema(check, value)
    elif kind == "language":
        if value not in LANGUAGES:
            raise BadInput(f"check {check}: unknown language {value[:40]!r}", fix=f"use one of {_listed(LANGUAGES)}")
    elif kind == "refusal":
        if value not in ("yes", "no"):
            raise BadInput(f"check {check}: refusal is {value[:40]!r}", fix='write "yes" or "no"')
    elif kind == "characters_max":
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise BadInput(f"check {check}: characters_max is {value[:40]!r}", fix="write a whole number as text")
    elif kind == "semantic":
        if not value.strip():
            raise BadInput(f"check {check}: semantic has no text to compare with")
    else:
        check_canonical(Expectation(kind=kind, value=value))


def _schema(check: str, text: str) -> Any:
    """Return the schema in `text`, or raise: no JSON, no schema, or one that looks elsewhere for its parts."""
    import jsonschema

    try:
        schema = json.loads(text)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"check {check}: json_schema is not JSON: {error}") from error
    except jsonschema.SchemaError as error:
        raise BadInput(f"check {check}: json_schema is no JSON schema: {error.message[:200]}") from error
    if "$ref" in text or "$dynamicRef" in text:
        raise BadInput(f"check {check}: json_schema refers to other schemas", fix="write it out in one piece")
    if "pattern" in text:
        raise BadInput(f"check {check}: json_schema has patterns, which may take for ever", fix="use `regex` beside it")
    return schema


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
