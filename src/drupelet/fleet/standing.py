"""Where a device stands in a rollout, read from what it last said and from its standing order. Pure."""

from __future__ import annotations

from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.fleet.plan import Standing
from drupelet.wire.device_api import DeviceEvent, DeviceStatus, SlotStatus

_NOT_A_FAILURE = frozenset({Reason.ORDERED_BACK, Reason.SUPERSEDED})
_AT_REST = frozenset({UpdateState.IDLE, UpdateState.FAILED})


def holding(status: DeviceStatus | None, slot: Slot | None) -> SlotStatus | None:
    """Return what is in a slot, as the device said."""
    if status is None or slot is None:
        return None
    return next((held for held in status.slots if held.slot is slot), None)


def committed_release(status: DeviceStatus | None) -> str:
    """Return the release the device would boot into, empty if none or unknown."""
    held = holding(status, status.committed) if status else None
    return held.release if held else ""


def serving_release(status: DeviceStatus | None) -> str:
    """Return the release that answers now, empty if none or unknown."""
    held = holding(status, status.serving) if status else None
    return held.release if held else ""


def standing(
    status: DeviceStatus | None, *, release: str, exposed: bool, mode: Mode | None, first_serial: int, serial: int,
    failure: str,
) -> Standing:  # fmt: skip
    """Return where the device stands.

    `mode` is that of its standing order if that order is of this rollout (REVERT for any order away from the release),
    else None. `first_serial` is that of the first order of this rollout, `serial` that of the standing one.
    """
    if not exposed:
        return Standing.WAITING
    if mode is None:
        return Standing.COMMITTED if committed_release(status) == release else Standing.TAKEN_BACK
    if mode is Mode.REVERT:
        if status is None or status.order_serial < serial:
            return Standing.REVERTING
        gone = release not in (committed_release(status), serving_release(status)) and status.state in _AT_REST
        return Standing.TAKEN_BACK if gone else Standing.REVERTING
    if failure:
        return Standing.FAILED
    if status is None or status.order_serial < first_serial:
        return Standing.ORDERED
    if committed_release(status) == release and status.state is UpdateState.IDLE:
        return Standing.COMMITTED
    if status.state is UpdateState.PROBATION and status.release == release:
        return Standing.PROBATION
    if status.state is UpdateState.FAILED and status.release == release:
        return Standing.FAILED
    return Standing.UPDATING


def failure_of(event: DeviceEvent) -> str:
    """Return why the event means that the update failed, or empty if it does not."""
    moved = event.after is not event.before and event.after in (UpdateState.FAILED, UpdateState.REVERTING)
    if not moved or event.reason in _NOT_A_FAILURE or not event.release:
        return ""
    return words(event.reason, event.detail)


def words(reason: Reason, detail: str) -> str:
    """Return a reason and its sentence as one text."""
    return f"{reason.value}: {detail}" if detail else reason.value
