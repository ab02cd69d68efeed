"""Whether an answer is good: pure checks of an answer against a canonical prompt's expectations.

The forge, the device's trial and its watchdog all judge with this code, so that what the forge let pass cannot fail on
a device for another reading of the same words. Comparison ignores case and runs of white space, except for `regex`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from drupelet.core.errors import BadInput
from drupelet.wire.manifest import Expectation

PATTERN_LENGTH_MAX = 200
"""Characters in a regular expression."""
ANSWER_LENGTH_MAX = 16_000
"""Characters an answer may have; with bounded patterns this bounds the time a check may take."""
_SHOWN_LENGTH = 120
_NESTED_REPEAT = re.compile(r"\([^()]*[*+}][^()]*\)\s*[*+{]")
"""A repeated group that itself repeats, such as `(a+)+`: the shape that takes exponential time."""


def judge(answer: str, *, tokens: int, expectations: Sequence[Expectation]) -> tuple[bool, str]:
    """Return whether an answer of `tokens` tokens satisfies all expectations, and why or why not, in one sentence."""
    if not answer.strip():
        return False, "the answer is empty"
    if len(answer) > ANSWER_LENGTH_MAX:
        return False, f"the answer has more than {ANSWER_LENGTH_MAX} characters"
    for expectation in expectations:
        if not CHECKS[expectation.kind](answer, tokens, expectation.value):
            return False, f"{_shown(answer)} does not satisfy {expectation.kind} {_shown(expectation.value)}"
    return True, f"{_shown(answer)} satisfies all {len(expectations)} expectations"


def check(expectation: Expectation) -> None:
    """Raise `BadInput` if `judge` could not apply this expectation: a bad pattern, a count that is none, nothing."""
    kind, value = expectation.kind, expectation.value
    if kind == "regex":
        _check_pattern(value)
    elif kind in ("tokens_max", "tokens_min") and not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise BadInput(f"{kind} is {value!r}", fix="write a whole number as text")
    elif not value.strip():
        raise BadInput(f"the expectation {kind!r} is empty")


def plain(text: str) -> str:
    """Return `text` without differences of case and white space."""
    return " ".join(text.casefold().split())


def _check_pattern(pattern: str) -> None:
    if not 1 <= len(pattern) <= PATTERN_LENGTH_MAX:
        raise BadInput(f"a pattern of {len(pattern)} characters", fix=f"use 1 to {PATTERN_LENGTH_MAX}")
    if _NESTED_REPEAT.search(pattern):
        raise BadInput(f"the pattern {pattern!r} repeats a repetition, which may take for ever", fix="repeat only once")
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"the pattern {pattern!r} is not a regular expression: {error}") from error


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "...")


CHECKS: Mapping[str, Callable[[str, int, str], bool]] = {
    "equals": lambda answer, _tokens, value: plain(answer) == plain(value),
    "contains": lambda answer, _tokens, value: plain(value) in plain(answer),
    "not_contains": lambda answer, _tokens, value: plain(value) not in plain(answer),
    "regex": lambda answer, _tokens, value: re.search(value, answer) is not None,
    "tokens_max": lambda _answer, tokens, value: tokens <= int(value),
    "tokens_min": lambda _answer, tokens, value: tokens >= int(value),
}
"""Expectation kind -> (answer, its tokens, value) -> whether it holds. The kinds are those of the manifest."""
