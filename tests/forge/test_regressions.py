"""Counts say how sure they are; a fall that chance does not explain is refused, whatever the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.forge.checks import GroupBudget
from drupelet.forge.evaluation.budgets import cut_findings
from drupelet.forge.evaluation.intervals import loss_p_value, paired_drop, wilson
from drupelet.forge.evaluation.regressions import Verdict, group_findings, group_results


def _verdicts(*answers: bool | None, group: str = "g") -> tuple[Verdict, ...]:
    return tuple(Verdict(group, f"prompt {index}", passed, "why") for index, passed in enumerate(answers))


def test_wilson_is_the_textbooks() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_holds_the_share(passed: int, failed: int) -> None:
    low, high = wilson(passed, passed + failed)
    assert 0 <= low <= high <= 1
    assert passed + failed == 0 or low <= passed / (passed + failed) <= high


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1.0), (5, 0, 1 / 32), (1, 0, 0.5), (8, 2, 56 / 1024)])
def test_mcnemar_is_exact(lost: int, won: int, p: float) -> None:
    assert loss_p_value(lost, won) == pytest.approx(p)


def test_the_bootstrap_is_seeded_and_honest_where_nothing_changed() -> None:
    before, after = np.array([True] * 20), np.array([True] * 16 + [False] * 4)
    found = paired_drop(before, after, seed=1)
    assert found == paired_drop(before, after, seed=1)
    drop, low, high = found
    assert drop == pytest.approx(0.2)
    assert 0 <= low < 0.2 < high < 0.5
    same = paired_drop(before, before, seed=1)
    assert same == pytest.approx((0.0, -0.1391, 0.1391), abs=1e-4)
    assert paired_drop(before, ~before, seed=1)[0] == 1.0
    assert paired_drop(before[:0], before[:0], seed=1) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize(
    ("now", "before", "budget", "words"),
    [
        ((True,) * 10, None, GroupBudget(), None),
        ((True,) * 9 + (False,), None, GroupBudget(), "9 of 10 answered well (90.0%, 95% interval 59.6% to 98.2%)"),
        ((True,) * 9 + (False,), None, GroupBudget(pass_min=0.9), None),
        ((True,) * 7 + (False,) * 3, None, GroupBudget(pass_min=0.7), None),
        ((True, None), None, GroupBudget(), "1 of 2 prompts could not be judged"),
        ((True, None), None, GroupBudget(pass_min=0), None),
        ((False,) * 5 + (True,) * 5, (True,) * 10, GroupBudget(pass_min=0), "which chance does not explain"),
        ((False,) + (True,) * 9, (True,) * 10, GroupBudget(pass_min=0), None),
        ((False,) + (True,) * 9, (True,) * 10, GroupBudget(pass_min=0, drop_max=0.05), "where 5.0% is allowed"),
        ((True,) * 10, (True,) * 10, GroupBudget(drop_upper_max=0.1), "the interval may reach 10.0% at most"),
        ((True,) * 50, (True,) * 50, GroupBudget(drop_upper_max=0.1), None),
        ((True,) * 10, (False,) * 10, GroupBudget(drop_max=0), None),
    ],
)
def test_what_breaks_a_groups_budget(
    now: tuple[bool | None, ...], before: tuple[bool | None, ...] | None, budget: GroupBudget, words: str | None
) -> None:
    results = group_results(_verdicts(*now), None if before is None else _verdicts(*before))
    findings = group_findings(results, {"g": budget})
    assert (not findings) if words is None else (len(findings) == 1 and words in findings[0]), findings


def test_groups_are_compared_prompt_by_prompt() -> None:
    now = (*_verdicts(True, False, None), *_verdicts(True, group="h"))
    before = (*_verdicts(True, True, True), *_verdicts(False, group="h"))
    first, second = group_results(now, before)
    assert first.regression is not None
    assert (first.regression.lost, first.regression.won, first.regression.lost_prompts) == (1, 0, ("prompt 1",))
    assert (first.passed, first.total, first.unjudged, first.why) == (1, 3, 1, "why")
    assert second.regression is not None
    assert second.regression.drop == -1.0
    assert group_results(now, before[:-1])[1].regression is None, "other prompts are no comparison"


def test_answers_that_the_limit_ends() -> None:
    assert cut_findings([True] * 7 + [False] * 9, [False] * 16)
    assert not cut_findings([True] * 3 + [False] * 13, [False] * 16)
    assert not cut_findings([True] * 16, [True] * 16)
