"""The plan's rules, one at a time, without a store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drupelet.core.states import Mode
from drupelet.core.states import RolloutState as S
from drupelet.fleet.machine import Event
from drupelet.fleet.plan import Member, Model, PausedBy, Standing, decide, orders, waits_for


def member(rank: int, standing: Standing, mode: Mode | None = Mode.CANARY) -> Member:
    exposed = standing is not Standing.WAITING
    return Member(f"d-{rank}", rank, standing, exposed, mode if exposed else None)


def model(state: S, *members: Member, **changes: object) -> Model:
    made = Model(
        state=state, stage=1, caps=(1, 3), direct=False, paused_by=PausedBy.NOBODY, stage_started_ms=0, now_ms=10,
        stage_ms_min=0, trial_failures_max=0, staged_share=0.5, completed_share=1.0, members=members,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standing", "mode", "ordered"),
    [
        (Standing.PROBATION, Mode.CANARY, Mode.COMMIT),
        (Standing.ORDERED, Mode.CANARY, Mode.INSTALL),
        (Standing.UPDATING, Mode.CANARY, Mode.INSTALL),
        (Standing.PROBATION, Mode.COMMIT, None),
        (Standing.UPDATING, Mode.INSTALL, None),
        (Standing.FAILED, Mode.CANARY, None),
        (Standing.WAITING, None, None),
    ],
)
def test_who_commits_and_how(standing: Standing, mode: Mode | None, ordered: Mode | None) -> None:
    expected = (("d-1", ordered),) if ordered else ()
    assert orders(model(S.COMMITTING, member(1, standing, mode))) == expected


def test_it_is_complete_when_the_exposed_ones_have_committed() -> None:
    done = [member(rank, Standing.COMMITTED, Mode.COMMIT) for rank in range(3)]
    beyond = [member(rank, Standing.WAITING) for rank in (3, 4)]
    decision = decide(model(S.COMMITTING, *done, *beyond))
    assert decision is not None
    assert (decision.event, decision.reason) == (Event.COMMITTED, "3 of 3 devices committed")
    late = model(S.COMMITTING, *done[:2], member(2, Standing.PROBATION, Mode.COMMIT), *beyond)
    assert decide(late) is None
    assert waits_for(late) == "d-2"


def test_a_stage_orders_no_more_than_its_cap() -> None:
    exposed = [member(0, Standing.PROBATION)]
    waiting = [member(rank, Standing.WAITING) for rank in range(1, 6)]
    assert orders(model(S.STAGING, *exposed, *waiting)) == (("d-1", Mode.CANARY), ("d-2", Mode.CANARY))
    assert orders(model(S.STAGING, *exposed, *waiting, stage=0)) == ()


@pytest.mark.parametrize(
    ("state", "standing", "words"),
    [
        (S.STAGING, Standing.UPDATING, "d-1"),
        (S.STAGING, Standing.FAILED, "a person's decision: the update failed on d-1"),
        (S.COMMITTING, Standing.FAILED, "a person's decision: the update failed on d-1"),
        (S.ROLLING_BACK, Standing.REVERTING, "d-1"),
        (S.ROLLING_BACK, Standing.COMMITTED, "d-1"),
        (S.STAGING, Standing.PROBATION, "the next look"),
    ],
)
def test_what_it_waits_for_is_named(state: S, standing: Standing, words: str) -> None:
    assert waits_for(model(state, member(1, standing))) == words
