"""The table, row by row; what is not in it; the route; and random walks that must keep the promises."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.gateway.machine import (
    RESTARTS_BEFORE_FALLBACK,
    TABLE,
    AwaitDrained,
    ChildState,
    CountExit,
    Died,
    Drained,
    Effect,
    Event,
    Fallback,
    LoadAsked,
    Machine,
    NoTransition,
    Reply,
    Rest,
    Rested,
    RouteAsked,
    Routed,
    StartChild,
    Started,
    StartFailed,
    StopChild,
    UnloadAsked,
)
from drupelet.wire.control import CannotDo, Done, Load, Loaded

STARTS = {ChildState.LOADING, ChildState.RESTARTING}


def load(slot: Slot = Slot.A, *, version: str = "1.1") -> Load:
    """A load nobody will open."""
    return Load(
        slot=slot,
        path="/nowhere",
        digest="sha256:" + version[-1] * 64,
        release=f"kiosk/{version}",
        manifest="sha256:" + "0" * 64,
        variant="q4_0",
        model="kiosk",
        context_tokens=256,
    )


def happen(machine: Machine, kind: type, slot: Slot = Slot.A) -> list[Effect]:
    """Let an event of `kind` happen to the slot's present turn."""
    turn = machine.slots[slot].turn
    events: dict[type, Event] = {
        LoadAsked: LoadAsked(load(slot), ask=1),
        Started: Started(slot, turn, 5, 100),
        StartFailed: StartFailed(slot, turn, Reason.LOAD_FAILED, ExitReason.LOAD_FAILED, "why"),
        Died: Died(slot, turn, ExitReason.SIGNALLED),
        Rested: Rested(slot, turn),
        Drained: Drained(slot, turn),
        UnloadAsked: UnloadAsked(slot, ask=2),
        RouteAsked: RouteAsked(slot, ask=3),
    }
    return machine.on(events[kind])


WAYS: dict[ChildState, tuple[type, ...]] = {
    ChildState.EMPTY: (),
    ChildState.LOADING: (LoadAsked,),
    ChildState.READY: (LoadAsked, Started),
    ChildState.DRAINING: (LoadAsked, Started, UnloadAsked),
    ChildState.STOPPING: (LoadAsked, Started, UnloadAsked, Drained),
    ChildState.RESTING: (LoadAsked, Started, Died),
    ChildState.RESTARTING: (LoadAsked, Started, Died, Rested),
}
"""How to bring a slot into each state."""


def machine_in(state: ChildState) -> Machine:
    machine = Machine()
    for kind in WAYS[state]:
        happen(machine, kind)
    assert machine.slots[Slot.A].state is state
    return machine


@pytest.mark.parametrize(("state", "kind"), list(TABLE), ids=lambda x: getattr(x, "value", getattr(x, "__name__", "")))
def test_every_row_leads_where_the_table_says(state: ChildState, kind: type) -> None:
    machine = machine_in(state)
    effects = happen(machine, kind)
    after = machine.slots[Slot.A].state
    refused = any(isinstance(e, Reply) and isinstance(e.answer, CannotDo) and e.ask == 1 for e in effects)
    assert after is TABLE[state, kind][0] or (refused and after is state)


@pytest.mark.parametrize("state", ChildState)
@pytest.mark.parametrize("kind", [Started, StartFailed, Died, Rested, Drained])
def test_what_is_not_in_the_table_raises_and_changes_nothing(state: ChildState, kind: type) -> None:
    machine = machine_in(state)
    if (state, kind) in TABLE:
        return
    before = copy.deepcopy(machine.slots)
    with pytest.raises(NoTransition):
        happen(machine, kind)
    assert machine.slots == before


def test_news_of_an_older_turn_is_ignored() -> None:
    machine = machine_in(ChildState.RESTARTING)
    assert machine.on(Died(Slot.A, machine.slots[Slot.A].turn - 1, ExitReason.EXITED)) == []
    assert machine.slots[Slot.A].state is ChildState.RESTARTING


def test_a_load_is_answered_when_the_child_answers_and_again_at_once() -> None:
    machine = Machine()
    assert happen(machine, LoadAsked) == [StartChild(Slot.A, 1, load())]
    assert machine.on(LoadAsked(load(), ask=9)) == []
    assert happen(machine, Started) == [Reply(n, Loaded(load_ms=5, memory_bytes=100)) for n in (1, 9)]
    assert happen(machine, LoadAsked) == [Reply(1, Loaded(load_ms=5, memory_bytes=100))]


def test_another_release_for_a_full_slot_is_refused() -> None:
    machine = machine_in(ChildState.READY)
    (reply,) = machine.on(LoadAsked(load(version="1.2"), ask=4))
    assert isinstance(reply, Reply)
    assert isinstance(reply.answer, CannotDo)
    assert "holds kiosk/1.1" in reply.answer.detail


def test_a_failed_load_says_why_and_empties_the_slot() -> None:
    effects = happen(machine_in(ChildState.LOADING), StartFailed)
    assert effects == [
        CountExit(load(), ExitReason.LOAD_FAILED, "why"),
        Reply(1, CannotDo(reason=Reason.LOAD_FAILED, detail="why")),
    ]


def test_the_agents_load_waits_for_its_route_and_the_committed_one_does_not() -> None:
    asked = machine_in(ChildState.READY)
    assert (asked.routed, asked.usable(), asked.hopeful()) == (None, frozenset(), False)
    committed = Machine()
    committed.on(LoadAsked(load()))
    assert committed.hopeful()
    assert happen(committed, Started) == [Routed(load())]
    assert committed.usable() == {Slot.A}


def test_an_unload_drains_first_and_is_refused_while_routed() -> None:
    machine = machine_in(ChildState.READY)
    assert happen(machine, RouteAsked) == [Routed(load()), Reply(3, Done())]
    (reply,) = happen(machine, UnloadAsked)
    assert isinstance(reply, Reply)
    assert isinstance(reply.answer, CannotDo)
    happen(machine, LoadAsked, Slot.B)
    happen(machine, Started, Slot.B)
    happen(machine, RouteAsked, Slot.B)
    assert happen(machine, UnloadAsked) == [AwaitDrained(Slot.A, 1)]
    assert machine.usable() == {Slot.B}
    assert happen(machine, Drained) == [StopChild(Slot.A, 1)]
    assert happen(machine, Died)[-1] == Reply(2, Done())


def test_a_route_to_what_is_not_ready_is_refused() -> None:
    for state in set(ChildState) - {ChildState.READY}:
        (reply,) = happen(machine_in(state), RouteAsked)
        assert isinstance(reply, Reply)
        assert isinstance(reply.answer, CannotDo)


def test_failures_in_a_row_lengthen_the_rest_and_then_ask_for_the_other_release() -> None:
    machine = Machine()
    machine.on(LoadAsked(load()))
    happen(machine, Started)
    rests = []
    for _ in range(RESTARTS_BEFORE_FALLBACK):
        effects = happen(machine, Died)
        rests += [e.failures for e in effects if isinstance(e, Rest)]
        happen(machine, Rested)
        happen(machine, Started)
    assert rests == [1, 2, 3]
    assert effects[-1] == Fallback(Slot.A)
    effects = machine.on(Died(Slot.A, machine.slots[Slot.A].turn, ExitReason.EXITED, stable=True))
    assert Rest(Slot.A, machine.slots[Slot.A].turn, 1) in effects


def test_a_committed_load_that_fails_asks_for_the_next_entry_which_is_then_routed() -> None:
    machine = Machine()
    machine.on(LoadAsked(load()))
    assert happen(machine, StartFailed)[-1] == Fallback(Slot.A)
    machine.on(LoadAsked(load(Slot.B)))
    assert happen(machine, Started, Slot.B) == [Routed(load(Slot.B))]


@given(st.lists(st.tuples(st.sampled_from([t for _, t in TABLE] + [RouteAsked]), st.sampled_from(Slot)), max_size=60))
def test_random_walks_keep_the_promises(steps: list[tuple[type, Slot]]) -> None:
    machine = Machine()
    alive: dict[Slot, int] = {}
    for kind, slot in steps:
        try:
            effects = happen(machine, kind, slot)
        except NoTransition:
            continue
        if kind in (StartFailed, Died):
            alive.pop(slot, None)
        for effect in effects:
            if isinstance(effect, StartChild):
                assert effect.slot not in alive, "two children in one slot"
                alive[effect.slot] = effect.turn
        assert machine.usable() <= {s for s, held in machine.slots.items() if held.state is ChildState.READY}
        for s, held in machine.slots.items():
            assert (held.load is None) == (held.state is ChildState.EMPTY)
            assert s is not machine.routed or held.load is not None
            assert (s in alive) == (held.state not in (ChildState.EMPTY, ChildState.RESTING))
