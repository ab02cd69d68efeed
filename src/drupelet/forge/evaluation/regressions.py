"""Against the release that is replaced: the same questions, the same judges, paired prompt by prompt. Pure.

A new release may be a good model and still a worse one. Each group of prompts is counted for both; what was answered
well before and is not now is *lost*, the other way round *won*. The fall in the share of good answers comes with a
bootstrap interval over the prompts, and with McNemar's exact p-value: how likely chance alone loses as many of the
answers that changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drupelet.forge.checks import CANONICAL, GroupBudget
from drupelet.forge.evaluation.intervals import loss_p_value, paired_drop, wilson
from drupelet.forge.report import GroupResult, Regression

EVIDENT_P_MAX = 0.05
"""A loss that chance explains less often than this is refused, whatever the budget."""
_LOST_SHOWN = 10
_SEED = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """One prompt of a group: whether it was answered well, None where nobody could say, and why."""

    group: str
    prompt: str
    passed: bool | None
    why: str = ""


def group_results(now: Sequence[Verdict], before: Sequence[Verdict] | None) -> tuple[GroupResult, ...]:
    """Return the counts of each group, in order of first appearance, compared with `before` where it is given.

    `before` has the same prompts in the same order. A prompt that either could not judge is in no comparison.
    """
    groups = list(dict.fromkeys(one.group for one in now))
    return tuple(_group(name, now, before) for name in groups)


def group_findings(results: Sequence[GroupResult], budgets: dict[str, GroupBudget]) -> list[str]:
    """Return which groups break their budgets, with the numbers."""
    findings = []
    for one in results:
        budget = budgets.get(one.name, GroupBudget())
        judged = one.total - one.unjudged
        if one.unjudged and budget.pass_min > 0:
            findings.append(f"group {one.name}: {one.unjudged} of {one.total} prompts could not be judged: {one.why}")
        if judged and one.passed + 1e-9 < budget.pass_min * judged and one.name != CANONICAL:
            findings.append(
                f"group {one.name}: {one.passed} of {judged} answered well "
                f"({one.passed / judged:.1%}, 95% interval {one.low:.1%} to {one.high:.1%}) "
                f"where {budget.pass_min:.1%} are required; first: {one.why}"
            )
        if one.regression is not None:
            findings += _regression_findings(one.name, one.regression, budget)
    return findings


def _regression_findings(name: str, found: Regression, budget: GroupBudget) -> list[str]:
    numbers = (
        f"good answers fell from {found.before:.1%} to {found.after:.1%} "
        f"(by {found.drop:.1%}, 95% interval {found.low:.1%} to {found.high:.1%}; p = {found.p_value:.3g})"
    )
    if found.lost > found.won and found.p_value <= EVIDENT_P_MAX:
        return [f"regression in {name}: {numbers}, which chance does not explain; lost: {found.lost_prompts[0]!r}"]
    if budget.drop_max is not None and found.drop > budget.drop_max + 1e-12:
        return [f"regression in {name}: {numbers} where {budget.drop_max:.1%} is allowed"]
    if budget.drop_upper_max is not None and found.high > budget.drop_upper_max + 1e-12:
        return [f"regression in {name}: {numbers}; the interval may reach {budget.drop_upper_max:.1%} at most"]
    return []


def _group(name: str, now: Sequence[Verdict], before: Sequence[Verdict] | None) -> GroupResult:
    ours = [one for one in now if one.group == name]
    judged = [one.passed for one in ours if one.passed is not None]
    # What failed says more than what nobody could judge.
    failed = next((one for one in ours if one.passed is False), next((one for one in ours if one.passed is None), None))
    low, high = wilson(sum(judged), len(judged))
    return GroupResult(
        name=name,
        passed=sum(judged),
        total=len(ours),
        unjudged=len(ours) - len(judged),
        low=round(low, 4),
        high=round(high, 4),
        why="" if failed is None else failed.why[:500],
        regression=None if before is None else _regression(ours, [one for one in before if one.group == name]),
    )


def _regression(ours: Sequence[Verdict], theirs: Sequence[Verdict]) -> Regression | None:
    if len(theirs) != len(ours):
        return None
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=True) if a.passed is not None and b.passed is not None]
    if not pairs:
        return None
    was, now = np.array([a.passed for a, _ in pairs], bool), np.array([b.passed for _, b in pairs], bool)
    lost = [b.prompt for a, b in pairs if a.passed and not b.passed]
    won = int((~was & now).sum())
    drop, low, high = paired_drop(was, now, seed=_SEED)
    return Regression(
        before=round(float(was.mean()), 4),
        after=round(float(now.mean()), 4),
        drop=round(drop, 4),
        low=round(low, 4),
        high=round(high, 4),
        p_value=round(loss_p_value(len(lost), won), 6),
        lost=len(lost),
        won=won,
        lost_prompts=tuple(prompt[:200] for prompt in lost[:_LOST_SHOWN]),
    )
