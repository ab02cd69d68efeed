"""The rollout machine: every pair of the table, every pair that is not in it, and the diagram in the docs."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from drupelet.core.states import RolloutState
from drupelet.fleet.errors import WrongState
from drupelet.fleet.machine import TABLE, TAKING_BACK, Effect, Event, diagram, step

DOCS = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"


@pytest.mark.parametrize(("state", "event"), sorted(product(RolloutState, Event), key=str))
def test_a_pair_is_in_the_table_or_refused(state: RolloutState, event: Event) -> None:
    if (state, event) in TABLE:
        assert step(state, event).before is state
    else:
        with pytest.raises(WrongState, match=event.value):
            step(state, event)


def test_every_state_is_reached_and_only_ended_ones_have_no_way_out() -> None:
    reached = {row.after for row in TABLE.values()} | {RolloutState.PENDING}
    assert reached == set(RolloutState)
    without_exit = {state for state in RolloutState if not any(before is state for before, _ in TABLE)}
    assert without_exit == {RolloutState.ROLLED_BACK, RolloutState.HALTED, RolloutState.ABORTED}


def test_condemning_always_takes_back() -> None:
    for row in TABLE.values():
        if Effect.CONDEMN in row.effects:
            assert row.after is RolloutState.ROLLING_BACK


def test_an_operator_can_always_stop_what_has_not_ended() -> None:
    for state in RolloutState:
        if not state.ended and state not in TAKING_BACK:
            assert (state, Event.ROLLBACK) in TABLE
            assert (state, Event.ABORT) in TABLE


def test_the_docs_hold_the_diagram() -> None:
    assert diagram() in DOCS.read_text()
