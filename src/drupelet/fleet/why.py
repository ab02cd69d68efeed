"""Why is this device not updated? One sentence, then what it rests on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.fleet.standing import committed_release, words
from drupelet.wire.device_api import DeviceStatus
from drupelet.wire.orders import Order

_WAITS = {
    Reason.HELD: "it is held on the device",
    Reason.OUTSIDE_WINDOW: "it is outside its maintenance window",
    Reason.TOO_HOT: "it is too hot",
    Reason.UNDERVOLTAGE: "its power supply is too weak",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of the device. Ages are seconds; `silent_s` None: it never polled."""

    device: str
    enrolment: str
    status: DeviceStatus | None
    silent_s: float | None
    online: bool
    order: Order | None
    order_signed: bool
    rollout: str = ""
    """`rollout 3 (judging): why`, of the rollout that holds it or that it waits in; empty if none."""
    waits_in_draw: bool = False
    failure: str = ""


def why(case: Case) -> tuple[str, tuple[str, ...]]:
    """Return the answer and what it rests on."""
    because = _because(case)
    if case.enrolment != "approved":
        fix = "an operator must approve it" if case.enrolment == "pending" else "an operator rejected it"
        return f"It is {case.enrolment}: {fix}.", because
    if case.status is None:
        return "It is approved but has never polled: check that its agent runs and reaches this server.", because
    if not case.online:
        return f"It has not been heard of for {spoken(case.silent_s or 0.0)}.", because
    if case.status.state is UpdateState.FAILED:
        about = f" to {case.status.release}" if case.status.release else ""
        return f"Its update{about} failed: {_word(case.status.reason)}.", because
    if case.failure:
        return f"Its last update failed: {case.failure.partition(':')[0].replace('_', ' ')}.", because
    if case.waits_in_draw:
        return f"It waits for its stage in {case.rollout}.", because
    if case.order is None:
        return "Nothing was ever ordered: no rollout has selected it.", because
    return _with_order(case, case.order, case.status), because


def _with_order(case: Case, order: Order, status: DeviceStatus) -> str:
    if status.order_serial < order.serial:
        if not case.order_signed:
            return f"Order {order.serial} is about to be signed."
        return f"It has not accepted order {order.serial} yet (it obeys {status.order_serial}){_said(status)}."
    if status.state is UpdateState.PREFLIGHT:
        waits = _WAITS.get(status.reason, "it checks whether it can take the release")
        return f"The update waits: {waits}{_said(status)}."
    if status.state is UpdateState.DOWNLOADING:
        done = f"{status.progress_bytes / 1e6:.1f} of {status.total_bytes / 1e6:.1f} MB" if status.total_bytes else ""
        return f"It is downloading {status.release} {done}{_said(status)}.".replace(" .", ".")
    if status.state is UpdateState.PROBATION and order.mode is Mode.CANARY:
        return f"{order.release} is on probation: it serves both releases in turn ({status.pairs_done} pairs so far)."
    if status.state is not UpdateState.IDLE:
        return f"The update is under way: {status.state.value}{_said(status)}."
    if committed_release(status) == order.release:
        return f"It is up to date: {order.release}, as ordered."
    return f"It was ordered to {order.mode.value} {order.release} and stands idle{_said(status)}."


def _because(case: Case) -> tuple[str, ...]:
    lines = []
    if case.rollout:
        lines.append(case.rollout)
    if case.order is not None:
        lines.append(f"order {case.order.serial}: {case.order.mode.value} {case.order.release}. {case.order.reason}")
    if case.status is not None:
        runs = committed_release(case.status) or "nothing"
        lines.append(f"it says: {case.status.state.value}, committed {runs}, gateway {case.status.gateway}")
        if case.status.reason is not Reason.NONE:
            lines.append(words(case.status.reason, case.status.detail))
    if case.failure:
        lines.append(f"the rollout notes: {case.failure}")
    return tuple(lines)


def _word(reason: Reason) -> str:
    """A reason in a sentence; the device's own words, which may be long, stand beside it."""
    return "no reason given" if reason is Reason.NONE else reason.value.replace("_", " ")


def _said(status: DeviceStatus) -> str:
    return f" ({words(status.reason, status.detail)})" if status.reason is not Reason.NONE else ""


def spoken(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
