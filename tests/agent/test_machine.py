"""The table: complete, closed, and never writing what serves."""

from __future__ import annotations

import itertools
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.agent import events as e
from drupelet.agent import machine
from drupelet.agent.errors import UnknownTransition
from drupelet.agent.model import DeviceState, Standing
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.wire.orders import Condemned
from tests.agent.states import both, held, in_flight, order, resting

EVENTS = get_args(e.AnyEvent)
SAMPLES: dict[type, e.Event] = {
    e.Ordered: e.Ordered(order=order(serial=5, version="1.3")),
    e.Continued: e.Continued(order=order(serial=5)),
    e.Satisfied: e.Satisfied(order=order(serial=5)),
    e.CommitOrdered: e.CommitOrdered(order=order(Mode.COMMIT, serial=5)),
    e.Recalled: e.Recalled(reason=Reason.OPERATOR, to=Slot.A),
    e.Condemning: e.Condemning(condemned=(Condemned(release="kiosk/0.9", manifest="sha256:" + "aa" * 32),)),
    e.HoldSet: e.HoldSet(held=True),
    e.Admitted: e.Admitted(slot=Slot.B, target=held("1.2", Standing.UNTRIED)),
    e.CoinDrawn: e.CoinDrawn(pair=0, new_first=True, pairs_done=0),
    e.Watched: e.Watched(watched_ms=10),
}


def sample(kind: type[e.Event]) -> e.Event:
    return SAMPLES.get(kind) or kind()


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(UpdateState, EVENTS)))
def test_every_pair_is_in_the_table_or_refused_without_change(state: UpdateState, kind: type[e.Event]) -> None:
    before = in_flight(state)
    if (state, kind) in machine.TABLE:
        after, effect = machine.step(before, sample(kind))
        assert (after.state, effect) == machine.TABLE[state, kind]
    else:
        with pytest.raises(UnknownTransition, match=e.name_of(kind)):
            machine.step(before, sample(kind))


def test_every_state_can_be_resumed_and_left() -> None:
    assert set(machine.STEP) == set(UpdateState)
    for state in UpdateState:
        assert any(row[0] is state and row[2] is not state for row in machine._ROWS)


def test_an_effect_is_always_the_one_a_restart_would_begin() -> None:
    for (_, _), (after, effect) in machine.TABLE.items():
        assert effect in (machine.KEEP, machine.STEP[after])


def test_the_safe_slot_is_never_admitted_for_writing() -> None:
    with pytest.raises(UnknownTransition, match="serves and is never written"):
        machine.step(in_flight(UpdateState.PREFLIGHT), e.Admitted(slot=Slot.A, target=held("1.2")))


def test_a_slot_holds_nothing_from_the_moment_it_may_be_overwritten() -> None:
    before = in_flight(UpdateState.VERIFYING)
    before = msgspec.structs.replace(before, slots=before.slots | {Slot.B: held("1.0")})
    after, effect = machine.step(before, e.Verified())
    assert Slot.B not in after.slots
    assert effect is machine.Do.WRITE


def test_commit_moves_committed_and_serving_together() -> None:
    after, _ = machine.step(in_flight(UpdateState.COMMITTING), e.Committed())
    assert (after.committed, after.serving, after.update) == (Slot.B, Slot.B, None)
    assert after.slots[Slot.B].standing is Standing.GOOD


@pytest.mark.parametrize(
    ("reason", "standing"),
    [(Reason.ORDERED_BACK, Standing.BAD), (Reason.WATCHDOG, Standing.BAD), (Reason.OPERATOR, Standing.GOOD)],
)
def test_only_what_was_shown_bad_cannot_be_gone_back_to(reason: Reason, standing: Standing) -> None:
    after, _ = machine.step(both(), e.Recalled(reason=reason, to=Slot.A))
    assert after.slots[Slot.B].standing is standing


def test_the_reason_to_go_back_survives_a_delay_on_the_way() -> None:
    state, _ = machine.step(in_flight(UpdateState.PROBATION), e.Recalled(reason=Reason.WATCHDOG, detail="x", to=Slot.A))
    state, _ = machine.step(state, e.Delayed(reason=Reason.GATEWAY_UNREACHABLE))
    state, _ = machine.step(state, e.TakenBack())
    assert (state.state, state.reason, state.detail) == (UpdateState.FAILED, Reason.WATCHDOG, "x")
    assert state.committed is state.serving is Slot.A


def test_a_first_release_that_cannot_go_back_serves_on_uncommitted() -> None:
    before = msgspec.structs.replace(
        in_flight(UpdateState.PROBATION), committed=None, serving=Slot.B, slots={Slot.B: held("1.2", Standing.TRIED)}
    )
    after, _ = machine.step(before, e.Stuck(reason=Reason.NO_OTHER_SLOT))
    assert (after.state, after.serving, after.committed) == (UpdateState.FAILED, Slot.B, None)


def test_a_newer_serial_of_the_same_release_starts_its_pairs_anew() -> None:
    before = in_flight(UpdateState.PROBATION)
    before, _ = machine.step(before, e.CoinDrawn(pair=4, new_first=True, pairs_done=4))
    after, _ = machine.step(before, e.Continued(order=order(serial=9)))
    assert after.update is not None
    assert (after.serial, after.update.pairs_drawn, after.update.pairs_done) == (9, 0, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_whatever_happens_something_safe_stays_and_condemnations_only_grow(kinds: list[type[e.Event]]) -> None:
    state = resting()
    for kind in kinds:
        before = state
        try:
            state, _ = machine.step(state, sample(kind))
        except UnknownTransition:
            assert state == before
            continue
        assert state.safe_slot is not None
        assert state.safe_slot in state.slots
        assert set(before.condemned) <= set(state.condemned)
        assert state.serial >= before.serial


def test_the_diagram_names_every_state() -> None:
    drawn = machine.diagram()
    assert all(f"{state.value} " in drawn or f"> {state.value}" in drawn for state in UpdateState)


def test_an_empty_device_knows_nothing() -> None:
    assert DeviceState().safe_slot is None
    assert machine.resume(DeviceState()) is machine.Do.REST
