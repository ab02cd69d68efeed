"""The answer of `drupelet verify`: checks with their evidence, and facts that a reader may want to compare."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from drupelet import __version__
from drupelet.core.errors import BadInput, DrupeletError, NotFound, Unavailable
from drupelet.trust.clock import written
from drupelet.trust.errors import RepositoryMissing
from drupelet.wire.codec import Message

EVIDENCE_CHARACTERS_MAX = 4000
Text = Annotated[str, Meta(max_length=EVIDENCE_CHARACTERS_MAX)]


class Verdict(Enum):
    """What a check found. Unknown is not a pass."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNKNOWN = "unknown"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question, what was found, and the evidence."""

    name: Text
    verdict: Verdict
    evidence: Text


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something to compare with what one has from elsewhere: a digest, a key id, a time."""

    what: Text
    value: Text


class Answer(Message, frozen=True, kw_only=True):
    """What was verified of a release, when, by what, and how it came out."""

    FORMAT: ClassVar[str] = "drupelet.verification/1"
    BYTES_MAX: ClassVar[int] = 1 << 20

    format: str = "drupelet.verification/1"
    release: Text
    source: Text
    """The depot or the package's folder."""
    verified_at: Text
    tool: Text
    verdict: Verdict
    checks: tuple[Check, ...]
    facts: tuple[Fact, ...]
    accepted: tuple[Text, ...] = ()
    """Checks whose answer may be unknown, because whoever asked said so."""


def overall(checks: Collection[Check], accepted: Collection[str]) -> Verdict:
    """Return FAIL if one check failed, PASS if all passed but those that may be unknown, else UNKNOWN."""
    if any(check.verdict is Verdict.FAIL for check in checks):
        return Verdict.FAIL
    if all(check.verdict is Verdict.PASS or check.name in accepted for check in checks):
        return Verdict.PASS
    return Verdict.UNKNOWN


Found = tuple[Verdict, str]
"""What a check found, and its evidence."""


def require_known(accepted: Collection[str], names: Sequence[str]) -> None:
    """Raise `BadInput` unless every check that may remain without an answer is one of `names`."""
    for name in accepted:
        if name not in names:
            raise BadInput(f"there is no check called {name!r}", fix=f"there are {', '.join(names)}")


def answered(
    checks: Mapping[str, Callable[[], Found]],
    facts: Sequence[Fact],
    *,
    release: str,
    source: str,
    now: datetime,
    accepted: Collection[str],
) -> Answer:
    """Run the checks, in order, and return the answer. What a check raises of ours is a failure with its
    reason, but for what cannot be read now."""
    found = tuple(_checked(name, check) for name, check in checks.items())
    return Answer(
        release=release,
        source=source,
        verified_at=written(now),
        tool=f"drupelet {__version__}",
        verdict=overall(found, accepted),
        checks=found,
        facts=tuple(facts),
        accepted=tuple(sorted(accepted)),
    )


def _checked(name: str, check: Callable[[], Found]) -> Check:
    try:
        verdict, evidence = check()
    except (NotFound, RepositoryMissing) as error:
        verdict, evidence = Verdict.FAIL, f"missing: {error.line()}"
    except Unavailable as error:
        # A network that is down says nothing about the release.
        verdict, evidence = Verdict.UNKNOWN, f"could not be read now: {error.line()}"
    except DrupeletError as error:
        verdict, evidence = Verdict.FAIL, error.line()
    return Check(name=name, verdict=verdict, evidence=evidence[:EVIDENCE_CHARACTERS_MAX])


_WORDS = {
    Verdict.PASS: "VERIFIED",
    Verdict.FAIL: "NOT VERIFIED: a check failed",
    Verdict.UNKNOWN: "NOT VERIFIED IN FULL: a check has no answer",
}


def as_markdown(answer: Answer) -> str:
    """Return the answer as a page to file."""
    lines = [
        f"# Verification of {answer.release}",
        "",
        f"**{_WORDS[answer.verdict]}**",
        "",
        f"Verified at {answer.verified_at} by {answer.tool}, from {answer.source}.",
    ]
    if answer.accepted:
        lines += ["", f"Whoever asked accepts no answer for: {', '.join(answer.accepted)}."]
    lines += ["", "## Checks", "", "| check | result | evidence |", "| --- | --- | --- |"]
    lines += [f"| {_cell(c.name)} | {c.verdict.value} | {_cell(c.evidence)} |" for c in answer.checks]
    lines += ["", "## Facts", "", "| what | value |", "| --- | --- |"]
    lines += [f"| {_cell(fact.what)} | `{_cell(fact.value)}` |" for fact in answer.facts]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text that stays inside its cell: parts of it were written by whoever made the release."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
