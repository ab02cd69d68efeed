"""Whether an answer is good: pure checks of a text against a canonical prompt's expectations.

Each check is one file-independent function, named as the recipe and the manifest write it. Comparison ignores case and
runs of white space where the name does not say otherwise: a model may answer `We open at 9.` or `we open at 9`, and a
release is not refused for that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from drupelet.core.errors import BadInput

PATTERN_LENGTH_MAX = 200
"""Characters in a regular expression."""
ANSWER_LENGTH_MAX = 4_000
"""Characters of an answer that are looked at; with bounded patterns this bounds the time a check may take."""
EXPECTATIONS_MAX = 32
_SHOWN_LENGTH = 120
_NESTED_REPEAT = re.compile(r"\([^()]*[*+}][^()]*\)\s*[*+{]")
"""A repeated group that itself repeats, such as `(a+)+`: the shape that takes exponential time."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One thing a good answer must satisfy: `kind` is a key of `CHECKS`, `value` what it is compared with."""

    kind: str
    value: str

    def __post_init__(self) -> None:
        if self.kind not in CHECKS:
            raise BadInput(f"unknown expectation {self.kind!r}", fix=f"use one of {', '.join(sorted(CHECKS))}")
        if self.kind == "regex":
            _check_pattern(self.value)
        elif self.kind == "max_chars" and not (self.value.isdecimal() and 0 < int(self.value) <= ANSWER_LENGTH_MAX):
            raise BadInput(f"max_chars is {self.value!r}", fix=f"use 1 to {ANSWER_LENGTH_MAX}")
        elif not self.value.strip():
            raise BadInput(f"the expectation {self.kind!r} is empty")


def judge(answer: str, expectations: Sequence[Expectation]) -> tuple[bool, str]:
    """Return whether `answer` satisfies all expectations, and why or why not, in one sentence."""
    if not answer.strip():
        return False, "the answer is empty"
    if len(answer) > ANSWER_LENGTH_MAX:
        return False, f"the answer has more than {ANSWER_LENGTH_MAX} characters"
    for expectation in expectations:
        if not CHECKS[expectation.kind](answer, expectation.value):
            return False, f"{_shown(answer)} does not satisfy {expectation.kind} {_shown(expectation.value)}"
    return True, f"{_shown(answer)} satisfies {len(expectations)} of {len(expectations)} expectations"


def plain(text: str) -> str:
    """Return `text` without differences that do not matter: case, white space, typographic quotes, final stop."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return " ".join(folded.split()).rstrip(".! ")


def _check_pattern(pattern: str) -> None:
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise BadInput(f"a pattern of {len(pattern)} characters", fix=f"use at most {PATTERN_LENGTH_MAX}")
    if _NESTED_REPEAT.search(pattern):
        raise BadInput(f"the pattern {pattern!r} repeats a repetition, which may take for ever", fix="repeat only once")
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"the pattern {pattern!r} is not a regular expression: {error}") from error


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "...")


CHECKS: Mapping[str, Callable[[str, str], bool]] = {
    "equals": lambda answer, value: plain(answer) == plain(value),
    "contains": lambda answer, value: plain(value) in plain(answer),
    "not_contains": lambda answer, value: plain(value) not in plain(answer),
    "regex": lambda answer, value: re.search(value, answer, re.IGNORECASE) is not None,
    "max_chars": lambda answer, value: len(answer) <= int(value),
}
"""What a recipe may expect of an answer: kind -> (answer, value) -> whether it holds."""
