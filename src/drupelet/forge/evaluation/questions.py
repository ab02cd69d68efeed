"""Asking a running file: canonical prompts, checks, the evaluation's own prompts; twice, to see that it says the same.

The same questions go to the f16 reference, to each variant and to the release that is replaced, through the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drupelet.engine.canonical import judge
from drupelet.engine.client import Answer
from drupelet.engine.spec import EngineAnswered
from drupelet.forge.checks import CANONICAL, Check
from drupelet.forge.evaluation.judges import Judgement, Judges
from drupelet.forge.evaluation.regressions import Verdict
from drupelet.forge.recipe import Recipe
from drupelet.forge.report import CanonicalResult, CheckResult
from drupelet.forge.runners.port import Messages, Session
from drupelet.wire.manifest import CanonicalPrompt

_WHY_MAX = 1000
REPEATED = 4
"""Prompts that are asked again, in the same process and in a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one running file answered."""

    canonical: tuple[CanonicalResult, ...]
    checks: tuple[CheckResult, ...]
    plain: tuple[Answer, ...]
    """Answers to the evaluation's own prompts, in order."""
    answers: tuple[Answer, ...]
    """All answers there were, for the median times."""


def message_of(prompt: str, system: str = "") -> Messages:
    """Return a chat of one question."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": prompt}]


def ask(recipe: Recipe, session: Session, judges: Judges, *, plain_max: int) -> Asked:
    """Ask everything; of the evaluation's own prompts the first `plain_max`. A refusal to answer fails the prompt."""
    answers: list[Answer] = []
    canonical = [_canonical(prompt, session, answers) for prompt in recipe.canonical_prompts]
    checks = [_check(check, prompt, session, judges) for check in recipe.checks for prompt in check.prompts]
    plan = recipe.evaluation
    plain = [session.ask(message_of(text), tokens_max=plan.answer_tokens_max) for text in plan.prompts[:plain_max]]
    return Asked(canonical=tuple(canonical), checks=tuple(checks), plain=tuple(plain), answers=(*answers, *plain))


def repeat(recipe: Recipe, session: Session) -> tuple[tuple[str, int], ...]:
    """Return text and number of tokens of the answers to the first prompts: what must be the same every time."""
    prompts = [*recipe.evaluation.prompts, *(one.prompt for one in recipe.canonical_prompts)]
    found = []
    for text in prompts[:REPEATED]:
        try:
            answer = session.ask(message_of(text), tokens_max=recipe.evaluation.answer_tokens_max)
            found.append((answer.text, answer.tokens))
        except EngineAnswered as error:
            found.append((error.what, 0))
    return tuple(found)


def verdicts(asked: Asked) -> tuple[Verdict, ...]:
    """Return the verdict of everything that was asked, in the recipe's order."""
    canonical = [Verdict(CANONICAL, one.id, one.passed, one.why) for one in asked.canonical]
    return (*canonical, *(Verdict(one.group, one.prompt, one.passed, one.why) for one in asked.checks))


def ask_canonical(recipe: Recipe, session: Session) -> tuple[CanonicalResult, ...]:
    """Ask the canonical prompts alone."""
    return tuple(_canonical(prompt, session, []) for prompt in recipe.canonical_prompts)


def _canonical(prompt: CanonicalPrompt, session: Session, answers: list[Answer]) -> CanonicalResult:
    try:
        answer = session.ask(message_of(prompt.prompt), tokens_max=prompt.tokens_max)
    except EngineAnswered as error:
        return CanonicalResult(id=prompt.id, passed=False, why=error.what[:_WHY_MAX])
    answers.append(answer)
    passed, why = judge(answer.text, tokens=answer.tokens, expectations=prompt.expect)
    return CanonicalResult(id=prompt.id, passed=passed, why=why[:_WHY_MAX])


def _check(check: Check, prompt: str, session: Session, judges: Judges) -> CheckResult:
    try:
        answer = session.ask(message_of(prompt, check.system), tokens_max=check.tokens_max)
    except EngineAnswered as error:
        found = Judgement(passed=False, why=error.what)
    else:
        found = judges.judge(check, answer.text, tokens=answer.tokens)
    return CheckResult(
        id=check.id, group=check.group, prompt=prompt[:_WHY_MAX], passed=found.passed, why=found.why[:_WHY_MAX]
    )


def cut_off(answers: Sequence[Answer]) -> list[bool]:
    """Return which answers the limit of tokens ended, and not the model."""
    return [answer.finish == "length" for answer in answers]
