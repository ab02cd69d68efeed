"""The update machine: one table, and what each event does to the state.

The theory. A device holds two slots. One of them serves and is *safe*: nothing in this table ever writes it. An
update fills the other one, tries it, routes to it and watches it, and only `committed` makes it the safe one. So at
every instant, and after a restart at every instant, there is a slot to serve from; the machine's state says what is
left to do, and every thing to do (`Do`) can be done again from the start without harm. That is why a restart needs no
cleverness: fold the journal, do what the state says.

Events in, state and effect out. An event the table has no row for raises `UnknownTransition` and changes nothing.
`diagram` draws docs/agent.md from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import msgspec

from drupelet.agent import events as e
from drupelet.agent.errors import UnknownTransition
from drupelet.agent.model import RESTING, DeviceState, Held, Standing, Update
from drupelet.core.names import Slot
from drupelet.core.states import Reason, UpdateState
from drupelet.wire.orders import Order


class Do(Enum):
    """What is to be done in a state. Its parameters are in the state; it may be begun again after any restart."""

    REST = "rest"
    CHECK = "check"
    FETCH = "fetch"
    VERIFY = "verify"
    WRITE = "write"
    TRY = "try"
    SWITCH = "switch"
    WATCH = "watch"
    COMMIT = "commit"
    REVERT = "revert"


S = UpdateState
STEP: Final[dict[UpdateState, Do]] = {
    S.IDLE: Do.REST,
    S.PREFLIGHT: Do.CHECK,
    S.DOWNLOADING: Do.FETCH,
    S.VERIFYING: Do.VERIFY,
    S.INSTALLING: Do.WRITE,
    S.TRIAL: Do.TRY,
    S.SWITCHING: Do.SWITCH,
    S.PROBATION: Do.WATCH,
    S.COMMITTING: Do.COMMIT,
    S.REVERTING: Do.REVERT,
    S.FAILED: Do.REST,
}
"""What a restart in a state begins again."""

KEEP = None
"""Go on with what is being done; no new effect."""

_ROWS: Final[tuple[tuple[UpdateState, type[e.Event], UpdateState, Do | None], ...]] = (
    # state         event               next state      effect
    (S.IDLE,        e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.IDLE,        e.Satisfied,        S.IDLE,         KEEP),
    (S.IDLE,        e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.IDLE,        e.Stuck,            S.FAILED,       Do.REST),

    (S.PREFLIGHT,   e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.PREFLIGHT,   e.Continued,        S.PREFLIGHT,    Do.CHECK),
    (S.PREFLIGHT,   e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.PREFLIGHT,   e.Delayed,          S.PREFLIGHT,    KEEP),
    (S.PREFLIGHT,   e.Admitted,         S.DOWNLOADING,  Do.FETCH),
    (S.PREFLIGHT,   e.Refused,          S.FAILED,       Do.REST),

    (S.DOWNLOADING, e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.DOWNLOADING, e.Continued,        S.DOWNLOADING,  KEEP),
    (S.DOWNLOADING, e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.DOWNLOADING, e.Delayed,          S.DOWNLOADING,  KEEP),
    (S.DOWNLOADING, e.Downloaded,       S.VERIFYING,    Do.VERIFY),
    (S.DOWNLOADING, e.Refused,          S.FAILED,       Do.REST),

    (S.VERIFYING,   e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.VERIFYING,   e.Continued,        S.VERIFYING,    KEEP),
    (S.VERIFYING,   e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.VERIFYING,   e.Delayed,          S.VERIFYING,    KEEP),
    (S.VERIFYING,   e.Lost,             S.DOWNLOADING,  Do.FETCH),
    (S.VERIFYING,   e.Verified,         S.INSTALLING,   Do.WRITE),
    (S.VERIFYING,   e.Refused,          S.FAILED,       Do.REST),

    (S.INSTALLING,  e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.INSTALLING,  e.Continued,        S.INSTALLING,   KEEP),
    (S.INSTALLING,  e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.INSTALLING,  e.Delayed,          S.INSTALLING,   KEEP),
    (S.INSTALLING,  e.Lost,             S.DOWNLOADING,  Do.FETCH),
    (S.INSTALLING,  e.Installed,        S.TRIAL,        Do.TRY),
    (S.INSTALLING,  e.Refused,          S.FAILED,       Do.REST),

    (S.TRIAL,       e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.TRIAL,       e.Continued,        S.TRIAL,        KEEP),
    (S.TRIAL,       e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.TRIAL,       e.Delayed,          S.TRIAL,        KEEP),
    (S.TRIAL,       e.TrialBegun,       S.TRIAL,        KEEP),
    (S.TRIAL,       e.TrialPassed,      S.SWITCHING,    Do.SWITCH),
    (S.TRIAL,       e.Refused,          S.FAILED,       Do.REST),

    (S.SWITCHING,   e.Continued,        S.SWITCHING,    KEEP),
    (S.SWITCHING,   e.Delayed,          S.SWITCHING,    KEEP),
    (S.SWITCHING,   e.Switched,         S.PROBATION,    Do.WATCH),
    (S.SWITCHING,   e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.SWITCHING,   e.Stuck,            S.FAILED,       Do.REST),

    (S.PROBATION,   e.Continued,        S.PROBATION,    Do.WATCH),
    (S.PROBATION,   e.CommitOrdered,    S.PROBATION,    KEEP),
    (S.PROBATION,   e.CoinDrawn,        S.PROBATION,    KEEP),
    (S.PROBATION,   e.Watched,          S.PROBATION,    KEEP),
    (S.PROBATION,   e.Delayed,          S.PROBATION,    KEEP),
    (S.PROBATION,   e.ProbationPassed,  S.COMMITTING,   Do.COMMIT),
    (S.PROBATION,   e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.PROBATION,   e.Stuck,            S.FAILED,       Do.REST),

    (S.COMMITTING,  e.Delayed,          S.COMMITTING,   KEEP),
    (S.COMMITTING,  e.Committed,        S.IDLE,         Do.REST),
    (S.COMMITTING,  e.Recalled,         S.REVERTING,    Do.REVERT),

    (S.REVERTING,   e.Delayed,          S.REVERTING,    KEEP),
    (S.REVERTING,   e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.REVERTING,   e.Reverted,         S.IDLE,         Do.REST),
    (S.REVERTING,   e.TakenBack,        S.FAILED,       Do.REST),
    (S.REVERTING,   e.Stuck,            S.FAILED,       Do.REST),

    (S.FAILED,      e.Ordered,          S.PREFLIGHT,    Do.CHECK),
    (S.FAILED,      e.Satisfied,        S.IDLE,         KEEP),
    (S.FAILED,      e.Recalled,         S.REVERTING,    Do.REVERT),
    (S.FAILED,      e.Stuck,            S.FAILED,       KEEP),
)  # fmt: skip

ANYWHERE: Final = (e.Condemning, e.HoldSet, e.Noted)
"""Events that every state takes without moving."""

TABLE: Final = {(state, event): (after, effect) for state, event, after, effect in _ROWS} | {
    (state, event): (state, KEEP) for state in UpdateState for event in ANYWHERE
}


def step(before: DeviceState, event: e.Event) -> tuple[DeviceState, Do | None]:
    """Return the state after `event` and what is now to be done (None: go on as before)."""
    row = TABLE.get((before.state, type(event)))
    if row is None:
        raise UnknownTransition(f"{e.name_of(event)} cannot happen in state {before.state.value}", where="agent")
    after, effect = row
    change = _CHANGES.get(type(event))
    changed = before if change is None else change(before, event)
    if type(event) not in ANYWHERE:
        changed = _with(changed, state=after, **_says(before, event))
    return changed, effect


def resume(state: DeviceState) -> Do:
    """Return what a restart in this state begins again."""
    return STEP[state.state]


def _says(before: DeviceState, event: e.Event) -> dict[str, Any]:
    """A state's reason is its last event's, except that counting time or coins says nothing about why."""
    if isinstance(event, e.QUIET):
        return {}
    if isinstance(event, e.Continued | e.CommitOrdered) and event.reason is Reason.NONE:
        return {}
    if isinstance(event, e.Reverted | e.TakenBack) and event.reason is Reason.NONE and before.update is not None:
        return {"reason": before.update.cause, "detail": before.update.why}
    return {"reason": event.reason, "detail": event.detail}


def _with(state: DeviceState, /, **changes: Any) -> DeviceState:
    return msgspec.structs.replace(state, **changes)


def _update(state: DeviceState, **changes: Any) -> DeviceState:
    return _with(state, update=msgspec.structs.replace(state.update or Update(), **changes))


def _held(state: DeviceState, slot: Slot | None, **changes: Any) -> dict[Slot, Held]:
    if slot is None or slot not in state.slots:
        return state.slots
    return state.slots | {slot: msgspec.structs.replace(state.slots[slot], **changes)}


def plain_order(order: Order) -> Order:
    """Return the order without its condemned list, which the state keeps apart and never shrinks."""
    return msgspec.structs.replace(order, condemned=())


def _ordered(state: DeviceState, event: e.Ordered) -> DeviceState:
    return _with(state, serial=event.order.serial, update=Update(order=plain_order(event.order)))


def _continued(state: DeviceState, event: e.Continued) -> DeviceState:
    # Pairs are counted within an order's serial: an older order's blocks are no evidence for this one.
    order = plain_order(event.order)
    return _with(_update(state, order=order, pairs_drawn=0, pairs_done=0), serial=order.serial)


def _satisfied(state: DeviceState, event: e.Satisfied) -> DeviceState:
    return _with(state, serial=event.order.serial, update=None)


def _commit_ordered(state: DeviceState, event: e.CommitOrdered) -> DeviceState:
    return _with(_update(state, order=plain_order(event.order)), serial=event.order.serial)


def _recalled(state: DeviceState, event: e.Recalled) -> DeviceState:
    resting = state.state in RESTING
    leaving = state.safe_slot if resting or state.update is None else state.update.slot
    order = plain_order(event.order) if event.order is not None else None
    if resting or state.update is None:
        update = Update(order=order, slot=leaving, target=state.slots.get(leaving) if leaving else None)
    else:
        update = state.update
    update = msgspec.structs.replace(update, back_to=event.to, cause=event.reason, why=event.detail)
    if order is not None:
        update = msgspec.structs.replace(update, order=order)
    serial = order.serial if order is not None else state.serial
    return _with(state, serial=serial, update=update, slots=_after_recall(state, leaving, event))


_SHOWN_BAD = frozenset(
    {Reason.ORDERED_BACK, Reason.WATCHDOG, Reason.CHILD_DIED, Reason.MEMORY_EXCEEDED, Reason.CONDEMNED}
)


def _after_recall(state: DeviceState, leaving: Slot | None, event: e.Recalled) -> dict[Slot, Held]:
    """What was shown or ordered bad is never gone back to; what an operator left may be gone back to."""
    if leaving is None or leaving is event.to or event.reason not in _SHOWN_BAD:
        return state.slots
    return _held(state, leaving, standing=Standing.BAD)


def _condemning(state: DeviceState, event: e.Condemning) -> DeviceState:
    known = {(c.release, c.manifest) for c in state.condemned}
    fresh = tuple(c for c in event.condemned if (c.release, c.manifest) not in known)
    return _with(state, condemned=state.condemned + fresh)


def _admitted(state: DeviceState, event: e.Admitted) -> DeviceState:
    if event.slot is state.safe_slot:
        raise UnknownTransition(f"slot {event.slot.value} serves and is never written", where="agent")
    return _update(state, slot=event.slot, target=event.target)


def _verified(state: DeviceState, _: e.Verified) -> DeviceState:
    # The slot is about to be overwritten: from here on it holds nothing, whatever a power cut leaves in it.
    slot = state.update.slot if state.update else None
    return _with(state, slots={key: held for key, held in state.slots.items() if key is not slot})


def _installed(state: DeviceState, _: e.Installed) -> DeviceState:
    update = state.update
    if update is None or update.slot is None or update.target is None:
        return state
    return _with(state, slots=state.slots | {update.slot: update.target})


def _refused(state: DeviceState, _: e.Refused) -> DeviceState:
    slot = state.update.slot if state.update and state.state is S.TRIAL else None
    return _with(state, slots=_held(state, slot, standing=Standing.BAD))


def _switched(state: DeviceState, _: e.Switched) -> DeviceState:
    # With nothing committed the new slot is all there is, so it serves; else the committed one stays the fallback.
    slot = state.update.slot if state.update else None
    return _with(state, serving=state.serving if state.committed is not None else slot)


def _committed(state: DeviceState, _: e.Committed) -> DeviceState:
    slot = state.update.slot if state.update else None
    slots = _held(state, slot, standing=Standing.GOOD)
    return _with(state, committed=slot, serving=slot, slots=slots, update=None)


def _gone_back(state: DeviceState, _: e.Event) -> DeviceState:
    to = state.update.back_to if state.update else None
    if to is None:
        return state
    return _with(state, committed=None if state.committed is None else to, serving=to)


def _reverted(state: DeviceState, event: e.Reverted) -> DeviceState:
    return _with(_gone_back(state, event), update=None)


def _stuck(state: DeviceState, event: e.Stuck) -> DeviceState:
    serial = event.order.serial if event.order is not None else state.serial
    if state.state is not S.REVERTING or state.update is None:
        return _with(state, serial=serial)
    # The slot gone back to does not run. The one being left ran, if it ever passed a trial: it must go on.
    left = state.slots.get(state.update.slot) if state.update.slot is not None else None
    kept = state.update.slot if left is not None and left.standing is not Standing.UNTRIED else state.serving
    return _with(state, serial=serial, serving=kept, committed=None if state.committed is None else kept)


_CHANGES: Final[dict[type[e.Event], Callable[[DeviceState, Any], DeviceState]]] = {
    e.Ordered: _ordered,
    e.Continued: _continued,
    e.Satisfied: _satisfied,
    e.CommitOrdered: _commit_ordered,
    e.Recalled: _recalled,
    e.Condemning: _condemning,
    e.HoldSet: lambda state, event: _with(state, held=event.held),
    e.Delayed: lambda state, event: (
        _update(state, faults=state.update.faults + 1) if event.fault and state.update else state
    ),
    e.Lost: lambda state, _: _update(state, faults=(state.update.faults if state.update else 0) + 1),
    e.Admitted: _admitted,
    e.Verified: _verified,
    e.Installed: _installed,
    e.TrialBegun: lambda state, _: _update(state, trials=(state.update.trials if state.update else 0) + 1),
    e.TrialPassed: lambda state, _: _with(
        state, slots=_held(state, state.update.slot if state.update else None, standing=Standing.TRIED)
    ),
    e.Refused: _refused,
    e.Switched: _switched,
    e.CoinDrawn: lambda state, event: _update(state, pairs_drawn=event.pair + 1, pairs_done=event.pairs_done),
    e.Watched: lambda state, event: _update(state, watched_ms=event.watched_ms, pairs_done=event.pairs_done),
    e.Committed: _committed,
    e.Reverted: _reverted,
    e.TakenBack: _gone_back,
    e.Stuck: _stuck,
}


def diagram(rows: Iterable[tuple[UpdateState, type[e.Event], UpdateState, Do | None]] = _ROWS) -> str:
    """Return the table as a Mermaid state diagram; events that do not move are left out."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, event, after, _ in rows:
        if state is not after:
            arrows.setdefault((state.value, after.value), []).append(e.name_of(event))
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {state} --> {after}: {', '.join(names)}" for (state, after), names in arrows.items()]
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the rows as a Markdown table, in the table's own order."""
    lines = ["| state | event | next state | to do |", "| --- | --- | --- | --- |"]
    for state, event, after, effect in _ROWS:
        lines.append(f"| {state.value} | {e.name_of(event)} | {after.value} | {effect.value if effect else ''} |")
    return "\n".join(lines) + "\n"
