"""What a rollout does next: one pure function from what is known to one decision. Reconcile applies it and asks again.

Orders follow from the state (level-triggered): whoever should have an order of this rollout and has not gets it now, be
it the first time, after a restart, or because a device was approved again. So nothing is lost by dying at any point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from drupelet.core.states import Mode
from drupelet.core.states import RolloutState as S
from drupelet.fleet.machine import AT_RISK, TAKING_BACK, Event, allows
from drupelet.gate import Kind, Verdict

NAMED_MAX = 3
"""Devices named in a sentence; the rest are counted."""


class Standing(Enum):
    """Where one device stands in a rollout, as far as it has said."""

    WAITING = "waiting"
    """Not drawn yet."""
    ORDERED = "ordered"
    """It has an order but has not said that it has seen it."""
    UPDATING = "updating"
    PROBATION = "probation"
    COMMITTED = "committed"
    FAILED = "failed"
    REVERTING = "reverting"
    """Ordered back, and not back yet."""
    TAKEN_BACK = "taken_back"


_ON_THE_WAY = frozenset({Standing.ORDERED, Standing.UPDATING, Standing.FAILED})
"""What keeps a stage of canaries waiting. A failed update is tried again by nobody but an operator."""


class PausedBy(Enum):
    """Who may end a pause: an operator's lasts until an operator resumes."""

    NOBODY = ""
    GATE = "gate"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Member:
    """A selected device. `mode` is its standing order's, None unless that order is of this rollout."""

    device: str
    rank: int
    standing: Standing
    exposed: bool
    mode: Mode | None = None
    has_previous: bool = True
    """Whether there is a release to take it back to."""
    failure: str = ""
    seen_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator asked for."""

    id: int
    event: Event
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """All that is known of a rollout at `now_ms`."""

    state: S
    stage: int
    caps: tuple[int, ...]
    direct: bool
    paused_by: PausedBy
    stage_started_ms: int
    now_ms: int
    stage_ms_min: int
    trial_failures_max: int
    staged_share: float
    completed_share: float
    members: tuple[Member, ...]
    """In the order of the draw."""
    verdict: Verdict | None = None
    commands: tuple[Command, ...] = ()

    @property
    def cap(self) -> int:
        """The most devices that may be exposed now."""
        return self.caps[min(self.stage, len(self.caps) - 1)] if self.caps else 0

    @property
    def last_stage(self) -> bool:
        """Whether no stage follows."""
        return self.stage >= len(self.caps) - 1


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to do, in one transaction: an event, or orders, with the reason in words."""

    reason: str
    event: Event | None = None
    actor: str = "fleet"
    paused_by: PausedBy = PausedBy.NOBODY
    command: int | None = None
    orders: tuple[tuple[str, Mode], ...] = ()


def decide(model: Model) -> Decision | None:
    """Return what to do now, or None when only time, devices or people can change anything."""
    if model.commands:
        return _obey(model.commands[0], model)
    if model.state is S.PENDING:
        return Decision(reason=f"first stage: {_devices(model.cap)} of {len(model.members)}", event=Event.START)
    if model.state in AT_RISK:
        return _danger(model) or _progress(model)
    if missing := orders(model):
        return Decision(reason=_says_orders(model, missing), orders=missing)
    if model.state is S.COMMITTING:
        return _commit(model)
    if model.state in TAKING_BACK:
        return _taken_back(model)
    return None


def orders(model: Model) -> tuple[tuple[str, Mode], ...]:
    """Return the orders that the state asks for and that are not standing yet."""
    if model.state is S.STAGING:
        mode = Mode.INSTALL if model.direct else Mode.CANARY
        exposed = sum(member.exposed for member in model.members)
        room = max(0, model.cap - exposed)
        return tuple((m.device, mode) for m in model.members if not m.exposed)[:room]
    if model.state is S.COMMITTING:
        wanted = []
        for member in model.members:
            # A commit means nothing to a device that has not got so far: it installs, which goes on with what it does.
            ready = member.standing in (Standing.PROBATION, Standing.COMMITTED)
            mode = Mode.COMMIT if ready and not model.direct else Mode.INSTALL
            done = member.mode in (Mode.COMMIT, Mode.INSTALL) or member.standing is Standing.FAILED
            if member.exposed and not done:
                wanted.append((member.device, mode))
        return tuple(wanted)
    if model.state in TAKING_BACK:
        return tuple(
            (m.device, Mode.REVERT)
            for m in model.members
            if m.exposed and m.has_previous and m.mode is not Mode.REVERT and m.mode is not None
        )
    return ()


def _obey(command: Command, model: Model) -> Decision:
    if not allows(model.state, command.event):
        said = f"{command.event.value} came too late: the rollout is {model.state.value}"
        return Decision(reason=said, actor=command.by, command=command.id)
    paused = PausedBy.OPERATOR if command.event is Event.PAUSE else PausedBy.NOBODY
    reason = command.reason or f"{command.event.value} by {command.by}"
    return Decision(reason=reason, event=command.event, actor=command.by, command=command.id, paused_by=paused)


def _danger(model: Model) -> Decision | None:
    """Return what must be done whatever else is going on."""
    failed = [m for m in model.members if m.exposed and m.standing is Standing.FAILED]
    if len(failed) > model.trial_failures_max:
        allowed = f"{model.trial_failures_max} allowed"
        named = "; ".join(f"{m.device}: {m.failure}" for m in failed[:NAMED_MAX])
        return Decision(reason=f"{_devices(len(failed))} failed ({allowed}): {named}"[:1000], event=Event.FAILED)
    if model.verdict is None:
        return None
    if model.verdict.kind is Kind.ROLLBACK:
        return Decision(reason=model.verdict.reason, event=Event.HARMED, actor="gate")
    if model.verdict.kind is Kind.PAUSE and model.state is not S.PAUSED:
        return Decision(reason=model.verdict.reason, event=Event.SUSPECTED, actor="gate", paused_by=PausedBy.GATE)
    if model.state is S.PAUSED and model.paused_by is PausedBy.GATE and model.verdict.kind is not Kind.PAUSE:
        return Decision(reason=model.verdict.reason, event=Event.CLEARED, actor="gate")
    return None


def _progress(model: Model) -> Decision | None:
    if model.state is S.STAGING:
        if missing := orders(model):
            return Decision(reason=_says_orders(model, missing), orders=missing)
        done = {Standing.COMMITTED} if model.direct else {Standing.PROBATION, Standing.COMMITTED}
        exposed = [m for m in model.members if m.exposed]
        staged = [m for m in exposed if m.standing in done]
        if len(staged) >= max(1, math.ceil(model.staged_share * len(exposed) - 1e-9)):
            verb = "committed" if model.direct else "on probation"
            return Decision(reason=f"{len(staged)} of {_devices(len(exposed))} {verb}", event=Event.STAGED)
        return None
    if model.state is S.JUDGING:
        return _judged(model)
    return None


def _judged(model: Model) -> Decision | None:
    if model.now_ms - model.stage_started_ms < model.stage_ms_min:
        return None
    if model.direct:
        reason = f"stage {model.stage + 1} is committed; no gate (design none)"
    elif model.verdict is not None and model.verdict.kind is Kind.PASS:
        reason = model.verdict.reason
    else:
        return None
    actor = "fleet" if model.direct else "gate"
    return Decision(reason=reason, event=Event.PASSED_LAST if model.last_stage else Event.PASSED, actor=actor)


def _commit(model: Model) -> Decision | None:
    exposed = [m for m in model.members if m.exposed]
    done = [m for m in exposed if m.standing is Standing.COMMITTED]
    if len(done) < max(1, math.ceil(model.completed_share * len(exposed) - 1e-9)):
        return None
    late = [m.device for m in exposed if m.standing is not Standing.COMMITTED]
    rest = f"; still to come: {names(late)}" if late else ""
    return Decision(reason=f"{len(done)} of {_devices(len(exposed))} committed{rest}", event=Event.COMMITTED)


def _taken_back(model: Model) -> Decision | None:
    exposed = [m for m in model.members if m.exposed]
    waiting = [m for m in exposed if m.has_previous and m.standing is not Standing.TAKEN_BACK]
    if waiting:
        return None
    stuck = [m.device for m in exposed if not m.has_previous]
    rest = f"; nothing to go back to on {names(stuck)}" if stuck else ""
    return Decision(
        reason=f"no device has it any more ({_devices(len(exposed) - len(stuck))} taken back){rest}",
        event=Event.TAKEN_BACK,
    )


def waits_for(model: Model) -> str:
    """Return in words what the rollout waits for now; empty when it has ended."""
    if model.state.ended:
        return ""
    if model.state is S.PAUSED:
        return "an operator's resume" if model.paused_by is PausedBy.OPERATOR else "the evidence to clear, or a person"
    if model.state is S.JUDGING:
        return model.verdict.wants if model.verdict and model.verdict.wants else "the gate's verdict"
    exposed = [m for m in model.members if m.exposed]
    if model.state in TAKING_BACK:
        late = [m for m in exposed if m.has_previous and m.standing is not Standing.TAKEN_BACK]
    else:
        arrived = {Standing.COMMITTED} if model.direct or model.state is S.COMMITTING else set(Standing) - _ON_THE_WAY
        late = [m for m in exposed if m.standing not in arrived]
    if late and all(m.standing is Standing.FAILED for m in late):
        return f"a person's decision: the update failed on {names(m.device for m in late)}"
    return names(m.device for m in late) if late else "the next look"


def names(devices: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    given = list(devices)
    rest = len(given) - NAMED_MAX
    return ", ".join(given[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _devices(count: int) -> str:
    return f"{count} device" + ("" if count == 1 else "s")


def _says_orders(model: Model, given: tuple[tuple[str, Mode], ...]) -> str:
    mode = given[0][1].value
    if model.state is S.STAGING:
        return f"stage {model.stage + 1} of {len(model.caps)}: {mode} to {names(d for d, _ in given)}"
    return f"{mode} to {names(d for d, _ in given)}"
