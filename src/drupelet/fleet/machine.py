"""The rollout machine: a table of (state, event) -> (state, effects). Pure; an unknown pair raises and changes nothing.

What devices are ordered to do follows from the state alone (`plan.orders`), so it is not an effect: a server that dies
after any transaction finds the state and gives the orders that are still missing. Effects are the two things that a
state cannot say: that the stage number grows, and that the release is condemned for good.

A rollout in PAUSED exposes nobody else but goes on being judged: harm found there still takes the release back.
COMPLETED is final for the fleet by itself, yet an operator may still roll back from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drupelet.core.states import RolloutState as S
from drupelet.fleet.errors import WrongState


class Event(Enum):
    """What may happen to a rollout."""

    START = "start"
    STAGED = "staged"
    """Every device of the stage has the release on probation (direct: has committed it)."""
    PASSED = "passed"
    """The gate passes the stage, and another follows."""
    PASSED_LAST = "passed_last"
    SUSPECTED = "suspected"
    """Evidence of harm, not enough to act on."""
    CLEARED = "cleared"
    """The evidence that paused it has gone."""
    HARMED = "harmed"
    """The gate says ROLLBACK."""
    FAILED = "failed"
    """More trials or updates failed than the policy allows."""
    COMMITTED = "committed"
    """Enough devices committed the release."""
    TAKEN_BACK = "taken_back"
    """No device has the release any more, as far as devices have said."""
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"


OPERATOR_EVENTS = (Event.PAUSE, Event.RESUME, Event.ABORT, Event.ROLLBACK)


class Effect(Enum):
    """What a transition does beside changing the state, in the same transaction."""

    ADVANCE = "advance"
    """The next stage begins."""
    CONDEMN = "condemn"
    """The release joins the list that every device refuses."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table."""

    before: S
    event: Event
    after: S
    effects: tuple[Effect, ...] = ()


# fmt: off
_ROWS: tuple[Transition, ...] = (
    Transition(S.PENDING,      Event.START,       S.STAGING),
    Transition(S.PENDING,      Event.PAUSE,       S.PAUSED),
    Transition(S.PENDING,      Event.ABORT,       S.ABORTING),
    Transition(S.PENDING,      Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.STAGING,      Event.STAGED,      S.JUDGING),
    Transition(S.STAGING,      Event.SUSPECTED,   S.PAUSED),
    Transition(S.STAGING,      Event.HARMED,      S.ROLLING_BACK, (Effect.CONDEMN,)),
    Transition(S.STAGING,      Event.FAILED,      S.HALTING),
    Transition(S.STAGING,      Event.PAUSE,       S.PAUSED),
    Transition(S.STAGING,      Event.ABORT,       S.ABORTING),
    Transition(S.STAGING,      Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.JUDGING,      Event.PASSED,      S.STAGING,      (Effect.ADVANCE,)),
    Transition(S.JUDGING,      Event.PASSED_LAST, S.COMMITTING),
    Transition(S.JUDGING,      Event.SUSPECTED,   S.PAUSED),
    Transition(S.JUDGING,      Event.HARMED,      S.ROLLING_BACK, (Effect.CONDEMN,)),
    Transition(S.JUDGING,      Event.FAILED,      S.HALTING),
    Transition(S.JUDGING,      Event.PAUSE,       S.PAUSED),
    Transition(S.JUDGING,      Event.ABORT,       S.ABORTING),
    Transition(S.JUDGING,      Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.PAUSED,       Event.PAUSE,       S.PAUSED),
    Transition(S.PAUSED,       Event.CLEARED,     S.STAGING),
    Transition(S.PAUSED,       Event.RESUME,      S.STAGING),
    Transition(S.PAUSED,       Event.HARMED,      S.ROLLING_BACK, (Effect.CONDEMN,)),
    Transition(S.PAUSED,       Event.FAILED,      S.HALTING),
    Transition(S.PAUSED,       Event.ABORT,       S.ABORTING),
    Transition(S.PAUSED,       Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.COMMITTING,   Event.COMMITTED,   S.COMPLETED),
    Transition(S.COMMITTING,   Event.ABORT,       S.ABORTING),
    Transition(S.COMMITTING,   Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.COMPLETED,    Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),

    Transition(S.HALTING,      Event.TAKEN_BACK,  S.HALTED),
    Transition(S.HALTING,      Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),
    Transition(S.ABORTING,     Event.TAKEN_BACK,  S.ABORTED),
    Transition(S.ABORTING,     Event.ROLLBACK,    S.ROLLING_BACK, (Effect.CONDEMN,)),
    Transition(S.ROLLING_BACK, Event.TAKEN_BACK,  S.ROLLED_BACK),
)
# fmt: on

TABLE: dict[tuple[S, Event], Transition] = {(row.before, row.event): row for row in _ROWS}

AT_RISK = frozenset({S.STAGING, S.JUDGING, S.PAUSED})
"""States in which canaries run the release on probation and the gate looks at them."""
TAKING_BACK = frozenset({S.ROLLING_BACK, S.HALTING, S.ABORTING})
BEFORE_COMMIT = AT_RISK | {S.PENDING}


def allows(state: S, event: Event) -> bool:
    """Return whether the table knows the pair."""
    return (state, event) in TABLE


def step(state: S, event: Event, *, where: str = "") -> Transition:
    """Return the transition, or raise `WrongState` naming what the state allows."""
    found = TABLE.get((state, event))
    if found is None:
        can = [e.value for e in OPERATOR_EVENTS if allows(state, e)]
        raise WrongState(
            f"{event.value} is not possible while the rollout is {state.value}",
            where=where,
            fix=f"possible now: {', '.join(can)}" if can else "it has ended; start another",
        )
    return found


def diagram() -> str:
    """Return the table as a Mermaid state diagram; docs/fleet.md holds this very text."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    for row in _ROWS:
        effects = f" / {', '.join(e.value for e in row.effects)}" if row.effects else ""
        lines.append(f"    {row.before.value} --> {row.after.value}: {row.event.value}{effects}")
    lines += [f"    {state.value} --> [*]" for state in S if state.ended]
    return "\n".join(lines)
