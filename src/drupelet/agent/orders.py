"""What an order means on this device, now: pure, from the order and the state to events.

An order that is not accepted keeps its serial unaccepted, so it is looked at again on the next poll: a commit order
that came before its release was on probation is obeyed once it is.
"""

from __future__ import annotations

from drupelet.agent import events as e
from drupelet.agent.model import BEFORE_SWITCH, ON_PROBATION, RESTING, DeviceState, Standing
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.wire.orders import Condemned, Order


def consider(state: DeviceState, order: Order) -> tuple[e.AnyEvent, ...]:
    """Return the events that `order` causes, in order; none if there is nothing new in it or it must wait."""
    if order.serial < state.serial:
        said = f"order {order.serial} came after order {state.serial} had been accepted"
        return (e.Noted(reason=Reason.REPLAYED, detail=said),)
    known = {(c.release, c.manifest) for c in state.condemned}
    fresh = tuple(c for c in order.condemned if (c.release, c.manifest) not in known)
    condemning = (e.Condemning(condemned=fresh),) if fresh else ()
    if order.serial == state.serial:
        return condemning
    match order.mode:
        case Mode.INSTALL | Mode.CANARY:
            answer = _install(state, order, fresh)
        case Mode.COMMIT:
            answer = _commit(state, order)
        case Mode.REVERT:
            answer = _revert(state, order, fresh)
    return (*condemning, *answer)


def _is_condemned(state: DeviceState, order: Order, fresh: tuple[Condemned, ...]) -> bool:
    if any(c.release == order.release or c.manifest == order.manifest for c in fresh):
        return True
    return state.is_condemned(order.release, order.manifest) is not None


def _safe_is(state: DeviceState, order: Order) -> bool:
    """Whether the safe slot holds, committed, the release that is ordered."""
    held = state.slots.get(state.committed) if state.committed is not None else None
    return held is not None and held.is_release(order)


def _install(state: DeviceState, order: Order, fresh: tuple[Condemned, ...]) -> tuple[e.AnyEvent, ...]:
    same = state.update is not None and state.update.concerns(order)
    if state.state in RESTING:
        if _safe_is(state, order) and not _is_condemned(state, order, fresh):
            return (e.Satisfied(order=order),)
        return (e.Ordered(order=order),)
    if state.state in BEFORE_SWITCH:
        if same:
            return (e.Continued(order=order),)
        if _safe_is(state, order):
            said = f"{order.release} is ordered, which is committed here"
            return (e.Recalled(reason=Reason.SUPERSEDED, detail=said, to=state.safe_slot, order=order),)
        return (e.Ordered(reason=Reason.SUPERSEDED if state.update else Reason.NONE, order=order),)
    if state.state in ON_PROBATION:
        if same and not _is_condemned(state, order, fresh):
            return (e.Continued(order=order),)
        said = f"order {order.serial} asks for {order.release}"
        return (_away(state, Reason.SUPERSEDED, said),)
    return ()


def _away(state: DeviceState, reason: Reason, detail: str, *, order: Order | None = None) -> e.AnyEvent:
    """Leave the new slot for the committed one, or say that there is none."""
    if state.committed is None and state.state is UpdateState.PROBATION:
        return e.Stuck(reason=Reason.NO_OTHER_SLOT, detail=f"{detail}; no other slot holds a release", order=order)
    return e.Recalled(reason=reason, detail=detail, to=state.safe_slot, order=order)


def _commit(state: DeviceState, order: Order) -> tuple[e.AnyEvent, ...]:
    if state.state is UpdateState.PROBATION and state.update is not None and state.update.concerns(order):
        return (e.CommitOrdered(order=order),)
    if state.state in RESTING and _safe_is(state, order):
        return (e.Satisfied(order=order),)
    if state.state is UpdateState.COMMITTING:
        return ()
    said = f"commit of {order.release} is ordered, which is not on probation here"
    return (e.Noted(reason=Reason.NOT_ON_PROBATION, detail=said),)


def _revert(state: DeviceState, order: Order, fresh: tuple[Condemned, ...]) -> tuple[e.AnyEvent, ...]:
    if _is_condemned(state, order, fresh):
        return (
            e.Noted(reason=Reason.CONDEMNED, detail=f"going back to {order.release} is ordered, which is condemned"),
        )
    said = order.reason or f"going back to {order.release} is ordered"
    to = state.good_slot(order.release, order.manifest)
    if state.state in RESTING:
        if _safe_is(state, order):
            return (e.Satisfied(order=order),)
        if to is None:
            return (e.Stuck(reason=Reason.NO_OTHER_SLOT, detail=f"no slot holds {order.release}", order=order),)
        return (e.Recalled(reason=Reason.ORDERED_BACK, detail=said, to=to, order=order),)
    if to is not None:
        return (e.Recalled(reason=Reason.ORDERED_BACK, detail=said, to=to, order=order),)
    return (_away(state, Reason.ORDERED_BACK, said, order=order),)


def rollback(state: DeviceState, *, said: str) -> e.Recalled | None:
    """Return what an operator's local rollback does, or None if there is nothing to go back to."""
    if state.state not in RESTING:
        if state.committed is None:
            return None
        return e.Recalled(reason=Reason.OPERATOR, detail=said, to=state.committed)
    to = other_good_slot(state)
    return None if to is None else e.Recalled(reason=Reason.OPERATOR, detail=said, to=to)


def other_good_slot(state: DeviceState) -> Slot | None:
    """Return the slot that does not serve and holds a release in good standing that is not condemned."""
    if state.safe_slot is None:
        return None
    other = state.safe_slot.other
    held = state.slots.get(other)
    if held is None or held.standing is not Standing.GOOD or state.is_condemned(held.release, held.manifest):
        return None
    return other


def condemned_in_flight(state: DeviceState) -> e.AnyEvent | None:
    """Return what must happen if the update under way is for a release that has been condemned meanwhile."""
    order = state.update.order if state.update is not None else None
    if order is None or order.mode is Mode.REVERT:
        return None
    entry = state.is_condemned(order.release, order.manifest)
    if entry is None:
        return None
    said = f"{order.release} is condemned: {entry.reason or 'no reason given'}"
    if state.state in BEFORE_SWITCH:
        return e.Refused(reason=Reason.CONDEMNED, detail=said)
    if state.state in ON_PROBATION and state.committed is not None:
        return e.Recalled(reason=Reason.CONDEMNED, detail=said, to=state.committed)
    return None
