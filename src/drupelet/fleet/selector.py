"""Label selectors as operators know them from Kubernetes: `site=lab,board in (pi5-8gb,pi4-8gb),!legacy`.

    key            the label is there            key=value, key==value   it has this value
    !key           it is not there               key!=value              it has another value, or is not there
    key in (a,b)   it has one of these values    key notin (a,b)         it has none of them, or is not there

Terms are joined by commas and must all hold; the empty selector matches everything. Besides its labels a device has
the keys `device`, `board`, `architecture` and `simulated`, which a label cannot override.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from drupelet.fleet.errors import BadSelector

SELECTOR_LENGTH_MAX = 1000
TERMS_MAX = 32

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_EXISTS = re.compile(rf"(!?)\s*({_KEY})\Z")
_EQUALS = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})\Z")
_AMONG = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)\Z")
_ONE_VALUE = re.compile(rf"{_VALUE}\Z")


class Operator(Enum):
    """How a term looks at its label."""

    EXISTS = "exists"
    ABSENT = "absent"
    IN = "in"
    NOT_IN = "notin"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels satisfy it."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold."""

    text: str
    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Parse the written form, or raise `BadSelector` naming the term."""
        stripped = text.strip()
        if len(stripped) > SELECTOR_LENGTH_MAX:
            raise BadSelector(f"selector has {len(stripped)} characters", fix=f"use at most {SELECTOR_LENGTH_MAX}")
        if not stripped:
            return cls(text="")
        parts = _split(stripped)
        if len(parts) > TERMS_MAX:
            raise BadSelector(f"selector has {len(parts)} terms", fix=f"use at most {TERMS_MAX}")
        return cls(text=stripped, terms=tuple(_term(part) for part in parts))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels satisfy every term."""
        return all(term.matches(labels) for term in self.terms)


def facts(device: str, board: str, architecture: str, simulated: bool, labels: Mapping[str, str]) -> dict[str, str]:
    """Return what selectors see of a device: its labels, and what it is."""
    own = {"device": device, "board": board, "architecture": architecture, "simulated": str(simulated).lower()}
    return {**labels, **own}


def _split(text: str) -> list[str]:
    """Cut at commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if depth != 0:
        raise BadSelector("parentheses do not match", where=f"selector {text!r}")
    return [*parts, text[start:]]


def _term(text: str) -> Term:
    part = text.strip()
    if found := _EXISTS.match(part):
        return Term(found[2], Operator.ABSENT if found[1] else Operator.EXISTS)
    if found := _EQUALS.match(part):
        return Term(found[1], Operator.NOT_IN if found[2] == "!=" else Operator.IN, (found[3],))
    if found := _AMONG.match(part):
        values = tuple(value.strip() for value in found[3].split(","))
        if all(_ONE_VALUE.match(value) for value in values) and any(values):
            return Term(found[1], Operator.IN if found[2] == "in" else Operator.NOT_IN, values)
    raise BadSelector(
        f"{part[:80]!r} is not a condition",
        where="selector",
        fix="write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, joined by commas",
    )
