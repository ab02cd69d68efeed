"""What an order means, by the state it meets."""

from __future__ import annotations

import msgspec
import pytest

from drupelet.agent import events as e
from drupelet.agent.model import BEFORE_SWITCH, DeviceState, Standing
from drupelet.agent.orders import condemned_in_flight, consider, other_good_slot, rollback
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.wire.orders import Condemned
from tests.agent.states import both, held, in_flight, manifest_digest, order, resting

S = UpdateState


def only(state: DeviceState, *args: object, **changes: object) -> e.Event | None:
    found = consider(state, order(*args, **changes))  # type: ignore[arg-type]
    assert len(found) <= 1
    return found[0] if found else None


def condemned(version: str) -> Condemned:
    return Condemned(release=f"kiosk/{version}", manifest=manifest_digest(version), reason="slow")


@pytest.mark.parametrize(
    ("state", "mode", "version", "expected"),
    [
        (resting(), Mode.INSTALL, "1.2", e.Ordered),
        (resting(), Mode.INSTALL, "1.1", e.Satisfied),
        (resting(), Mode.COMMIT, "1.1", e.Satisfied),
        (resting(), Mode.COMMIT, "1.2", e.Noted),
        (resting(), Mode.REVERT, "1.1", e.Satisfied),
        (resting(), Mode.REVERT, "1.0", e.Stuck),
        (both(), Mode.REVERT, "1.1", e.Recalled),
        (both(), Mode.INSTALL, "1.1", e.Ordered),
        (resting(state=S.FAILED), Mode.CANARY, "1.2", e.Ordered),
        (in_flight(S.PROBATION), Mode.COMMIT, "1.2", e.CommitOrdered),
        (in_flight(S.PROBATION), Mode.COMMIT, "1.3", e.Noted),
        (in_flight(S.PROBATION), Mode.CANARY, "1.2", e.Continued),
        (in_flight(S.PROBATION), Mode.CANARY, "1.3", e.Recalled),
        (in_flight(S.PROBATION), Mode.REVERT, "1.1", e.Recalled),
        (in_flight(S.TRIAL), Mode.COMMIT, "1.2", e.Noted),
        (in_flight(S.COMMITTING), Mode.REVERT, "1.1", e.Recalled),
        (in_flight(S.REVERTING), Mode.REVERT, "1.1", e.Recalled),
        (in_flight(S.COMMITTING), Mode.CANARY, "1.3", type(None)),
        (in_flight(S.REVERTING), Mode.CANARY, "1.3", type(None)),
    ],
)
def test_orders(state: DeviceState, mode: Mode, version: str, expected: type) -> None:
    assert type(only(state, mode, serial=7, version=version)) is expected


@pytest.mark.parametrize("state", [resting(), in_flight(S.TRIAL), in_flight(S.PROBATION), in_flight(S.REVERTING)])
def test_a_commit_of_what_is_not_on_probation_is_noted_as_that(state: DeviceState) -> None:
    event = only(state, Mode.COMMIT, serial=7, version="1.3")
    assert isinstance(event, e.Noted)
    assert event.reason is Reason.NOT_ON_PROBATION
    assert "kiosk/1.3" in event.detail


@pytest.mark.parametrize("state", sorted(BEFORE_SWITCH, key=lambda s: s.value))
def test_before_the_switch_a_newer_order_supersedes_and_a_revert_drops_the_update(state: S) -> None:
    device = in_flight(state)
    assert isinstance(only(device, Mode.CANARY, serial=7, version="1.3"), e.Ordered)
    back = only(device, Mode.REVERT, serial=7, version="1.1")
    assert isinstance(back, e.Recalled)
    assert (back.reason, back.to) == (Reason.ORDERED_BACK, Slot.A)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_same_serial_does_nothing(mode: Mode) -> None:
    assert only(resting(serial=7), mode, serial=7) is None


def test_an_older_order_is_noted_as_a_replay() -> None:
    event = only(resting(serial=7), Mode.INSTALL, serial=6)
    assert isinstance(event, e.Noted)
    assert event.reason is Reason.REPLAYED


def test_only_what_is_newly_condemned_is_recorded() -> None:
    state = resting(condemned=(condemned("0.8"),))
    first, *_ = consider(state, order(serial=7, version="1.1", condemned=(condemned("0.8"), condemned("0.9"))))
    assert first == e.Condemning(condemned=(condemned("0.9"),))


def test_condemnations_count_even_when_the_order_itself_is_old_news() -> None:
    found = consider(resting(serial=7), order(serial=7, condemned=(condemned("0.9"),)))
    assert found == (e.Condemning(condemned=(condemned("0.9"),)),)


def test_a_revert_to_a_condemned_release_is_not_obeyed() -> None:
    event = consider(both(), order(Mode.REVERT, serial=7, version="1.1", condemned=(condemned("1.1"),)))[-1]
    assert isinstance(event, e.Noted)
    assert event.reason is Reason.CONDEMNED


def test_a_revert_order_on_probation_without_another_slot_says_so_and_serves_on() -> None:
    state = msgspec.structs.replace(in_flight(S.PROBATION), committed=None, serving=Slot.B)
    state = msgspec.structs.replace(state, slots={Slot.B: held("1.2", Standing.TRIED)})
    event = only(state, Mode.REVERT, serial=7, version="1.1")
    assert isinstance(event, e.Stuck)
    assert event.reason is Reason.NO_OTHER_SLOT


@pytest.mark.parametrize(
    ("state", "to"),
    [
        (both(), Slot.A),
        (in_flight(S.PROBATION), Slot.A),
        (in_flight(S.DOWNLOADING), Slot.A),
        (resting(), None),
        (both(condemned=(condemned("1.1"),)), None),
        (both(slots={Slot.A: held("1.1", Standing.BAD), Slot.B: held("1.2")}), None),
        (DeviceState(), None),
    ],
)
def test_local_rollback(state: DeviceState, to: Slot | None) -> None:
    event = rollback(state, said="")
    assert (event.to if event else None) is to


def test_the_other_slot_counts_only_in_good_standing() -> None:
    assert other_good_slot(both()) is Slot.A
    assert other_good_slot(both(slots={Slot.A: held("1.1", Standing.TRIED), Slot.B: held("1.2")})) is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [(S.DOWNLOADING, e.Refused), (S.TRIAL, e.Refused), (S.PROBATION, e.Recalled), (S.COMMITTING, type(None))],
)
def test_a_release_condemned_on_its_way_is_dropped(state: S, expected: type) -> None:
    device = msgspec.structs.replace(in_flight(state), condemned=(condemned("1.2"),))
    assert type(condemned_in_flight(device)) is expected


def test_the_only_release_is_never_dropped_for_being_condemned() -> None:
    device = msgspec.structs.replace(
        in_flight(S.PROBATION), condemned=(condemned("1.2"),), committed=None, serving=Slot.B
    )
    assert condemned_in_flight(device) is None
