"""What each call of Mender's update-module protocol means to the update machine. Pure; `cli/compose/module.py` acts.

Mender calls the module once a state, with a process of its own each time (its "Update modules v3 protocol"). Between
two calls nothing of ours runs but the gateway, and the journal remembers. So every call is: tell the machine one thing,
let it work until it has come where this call may end, say whether that is success.

    ArtifactInstall    order the release           until it is on probation, serving   (or was committed already)
    ArtifactCommit     order it to be committed    until it is
    ArtifactRollback   an operator's rollback      until the release before serves again
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drupelet.agent.model import RESTING, DeviceState
from drupelet.core.states import Mode, UpdateState
from drupelet.wire.orders import Order

PROBATION_MS = 86_400_000
"""While a release waits for ArtifactCommit no agent runs that could commit it; this keeps one from doing so anyway."""


class Call(Enum):
    """The calls that do something. All others are answered by `ANSWERS`, or with nothing, as the protocol asks."""

    INSTALL = "ArtifactInstall"
    COMMIT = "ArtifactCommit"
    ROLLBACK = "ArtifactRollback"


ANSWERS = {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a call may end, how it ended and why. Until `ended`, the machine goes on."""

    ended: bool
    succeeded: bool
    why: str


WORKING = Outcome(ended=False, succeeded=False, why="")


def installed(state: DeviceState, order: Order) -> Outcome:
    """Return how the installation of `order` stands."""
    if state.state is UpdateState.PROBATION and state.update is not None and state.update.concerns(order):
        return Outcome(ended=True, succeeded=True, why=f"{order.release} serves and waits to be committed")
    if state.state in RESTING:
        held = state.slots.get(state.committed) if state.committed is not None else None
        if held is not None and held.is_release(order):
            return Outcome(ended=True, succeeded=True, why=f"{order.release} was committed already")
        return Outcome(ended=True, succeeded=False, why=_why(state))
    return WORKING


def commit_order(state: DeviceState, *, device: str) -> Order | None:
    """Return the order that commits what is on probation; None if nothing is."""
    order = state.update.order if state.update is not None else None
    if state.state is not UpdateState.PROBATION or order is None:
        return None
    return Order(
        device=device,
        serial=state.serial + 1,
        mode=Mode.COMMIT,
        release=order.release,
        manifest=order.manifest,
        variants=order.variants,
        reason="Mender committed the artifact",
        probation_ms=0,
    )


def committed(state: DeviceState, order: Order) -> Outcome:
    """Return how the commit of `order` stands."""
    if state.state not in RESTING:
        return WORKING
    held = state.slots.get(state.committed) if state.committed is not None else None
    if held is not None and held.is_release(order):
        return Outcome(ended=True, succeeded=True, why=f"{order.release} is committed")
    return Outcome(ended=True, succeeded=False, why=_why(state))


def nothing_to_commit(state: DeviceState) -> Outcome:
    """Return what a commit means while nothing is on probation: a second call, or an update that did not stay."""
    held = state.slots.get(state.committed) if state.committed is not None else None
    if state.state is UpdateState.IDLE and held is not None:
        return Outcome(ended=True, succeeded=True, why=f"{held.release} was committed already")
    return Outcome(ended=True, succeeded=False, why=f"nothing is on probation: {_why(state)}")


def rolled_back(state: DeviceState) -> Outcome:
    """Return how the way back stands: a machine that rests serves what served before, or nothing, as before."""
    if state.state not in RESTING:
        return WORKING
    held = state.slots.get(state.committed) if state.committed is not None else None
    return Outcome(ended=True, succeeded=True, why=f"{held.release} serves" if held else "nothing serves, as before")


def _why(state: DeviceState) -> str:
    return f"{state.reason.value}: {state.detail}" if state.detail else state.reason.value
