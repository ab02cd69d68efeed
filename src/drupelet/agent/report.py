"""What the device says of itself: to the fleet with each heartbeat, and to people through the status file. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from drupelet.agent.effects import Readings
from drupelet.agent.model import DeviceState
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.wire.codec import Message
from drupelet.wire.control import GatewayStatus
from drupelet.wire.device_api import DeviceStatus, SlotStatus

STATUS_BYTES_MAX = 256 * 1024
GatewayWord = Literal["serving", "starting", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the agent saw beside its journal when it last looked."""

    readings: Readings = field(default_factory=Readings)
    gateway: GatewayStatus | None = None
    gateway_word: GatewayWord = "unknown"
    free_bytes: int = 0
    done_bytes: int = 0
    windows_dropped: int = 0
    clock_ms: int = 0
    trouble: tuple[Reason, str] | None = None
    """A disk that takes no journal entries: said even though it cannot be recorded."""


def gateway_word(status: GatewayStatus | None) -> GatewayWord:
    """Return one word for the gateway."""
    if status is None:
        return "down"
    return "serving" if status.ready else "starting"


def device_status(state: DeviceState, seen: Seen) -> DeviceStatus:
    """Return what a heartbeat says."""
    update = state.update
    target = update.target if update is not None else None
    reason, detail = seen.trouble if seen.trouble is not None else (state.reason, state.detail)
    readings = seen.readings
    return DeviceStatus(
        state=state.state,
        reason=reason,
        detail=detail[:1000],
        release=update.order.release if update is not None and update.order is not None else "",
        order_serial=state.serial,
        progress_bytes=_progress(state, seen),
        total_bytes=target.size_bytes if target is not None and state.in_flight else 0,
        slots=tuple(
            SlotStatus(
                slot=slot, release=held.release, manifest=held.manifest, variant=held.variant, digest=held.digest
            )
            for slot, held in sorted(state.slots.items(), key=lambda item: item[0].value)
        ),
        serving=serving_slot(state, seen.gateway),
        committed=state.committed,
        pairs_done=update.pairs_done if update is not None else 0,
        free_bytes=seen.free_bytes,
        memory_available_bytes=readings.memory_available_bytes or 0,
        temperature_celsius=_within(readings.temperature_celsius),
        throttled=readings.throttled,
        gateway=seen.gateway_word,
        clock_ms=max(0, seen.clock_ms),
        windows_dropped=seen.windows_dropped,
        held=state.held,
    )


def serving_slot(state: DeviceState, gateway: GatewayStatus | None) -> Slot | None:
    """Return where new conversations go: as the gateway says, else as the journal intends."""
    if gateway is not None and gateway.ready:
        return gateway.serving
    if state.update is not None and state.state is UpdateState.PROBATION and state.update.mode is not Mode.CANARY:
        return state.update.slot
    return state.serving


def _progress(state: DeviceState, seen: Seen) -> int:
    target = state.update.target if state.update is not None else None
    if target is None or not state.in_flight or state.state is UpdateState.PREFLIGHT:
        return 0
    return seen.done_bytes if state.state is UpdateState.DOWNLOADING else target.size_bytes


def _within(celsius: float | None) -> float | None:
    """A broken sensor's value is no value."""
    return celsius if celsius is not None and -60 <= celsius <= 200 else None


class StatusFile(Message, frozen=True, kw_only=True):
    """`status.json`: what a running agent says to people on the device."""

    FORMAT: ClassVar[str] = "drupelet.status/1"
    BYTES_MAX: ClassVar[int] = STATUS_BYTES_MAX

    format: str = "drupelet.status/1"
    device: Annotated[str, Meta(max_length=64)]
    pid: int
    boot: Annotated[str, Meta(max_length=64)]
    written_at_ms: int
    version: Annotated[str, Meta(max_length=64)]
    fleet: Annotated[str, Meta(max_length=1000)] = ""
    """How the last heartbeat went: `ok`, or why not."""
    status: DeviceStatus
