"""Whether a release may be installed here, now: pure, from the manifest and what the device knows of itself.

Three answers: this variant (`Admitted`), not yet (`Delayed`), never on this device as it is (`Refused`). Unknown is
not bad, except where the release asks for something by name: then it must be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drupelet.agent import events as e
from drupelet.agent.effects import Readings
from drupelet.agent.model import DeviceState, Held
from drupelet.core.names import Slot
from drupelet.core.states import Reason
from drupelet.wire.device_api import Hardware
from drupelet.wire.fitness import driver_unfit, megabytes, numbers, unfit
from drupelet.wire.manifest import ReleaseManifest, Variant
from drupelet.wire.orders import Order
from drupelet.wire.runtime import OURS, Serves, served

DISK_MARGIN_BYTES = 64 * 1024 * 1024
"""Left free beside the release: journal, spool, metadata and the rest of the system need room too."""
MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Daily:
    """A maintenance window, minutes after local midnight; `end` before `start` goes past midnight."""

    start: int
    end: int

    def open_at(self, minute: int) -> bool:
        """Whether the window is open at this minute of the day."""
        if self.start <= self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class Facts:
    """What the device knows of itself. Sizes in bytes."""

    hardware: Hardware
    readings: Readings
    free_bytes: int
    present: frozenset[str] = frozenset()
    """Digests of blobs that are on the disk already."""
    runtime: str = ""
    """This program's version."""
    serves: Serves = OURS
    """What this program serves."""
    driver: str = ""
    """Name and version of the accelerator's driver, such as `hailo 5.1.0`."""
    windows: Sequence[Daily] = field(default_factory=tuple)
    minute: int = 0
    """Of the device's local day."""


def judge(order: Order, manifest: ReleaseManifest, state: DeviceState, facts: Facts) -> e.AnyEvent:
    """Return `Admitted`, `Delayed` or `Refused`; refusals first, so that what can never be does not wait."""
    entry = state.is_condemned(order.release, order.manifest)
    if entry is not None:
        said = f"{order.release} is condemned: {entry.reason or 'no reason given'}"
        return e.Refused(reason=Reason.CONDEMNED, detail=said)
    refused = _requirements(manifest, facts)
    if refused is not None:
        return refused
    wanted = [v for name in order.variants for v in manifest.variants if v.name == name]
    if not wanted:
        said = f"{order.release} has none of the variants {', '.join(order.variants)}"
        return e.Refused(reason=Reason.NO_VARIANT, detail=said)
    problems = [(_unfit(variant, manifest, facts), variant) for variant in wanted]
    fitting = next((variant for problem, variant in problems if problem is None), None)
    if fitting is None:
        # The last variant is the one asked for least and, by custom, the smallest: its problem says most.
        return next(problem for problem, _ in reversed(problems) if problem is not None)
    waits = _waits(manifest, state, facts)
    return waits if waits is not None else _admitted(order, manifest, fitting, state)


def _admitted(order: Order, manifest: ReleaseManifest, variant: Variant, state: DeviceState) -> e.Admitted:
    safe = state.safe_slot
    held = Held(
        release=order.release,
        manifest=order.manifest,
        variant=variant.name,
        digest=variant.digest,
        size_bytes=variant.size_bytes,
        document=manifest,
    )
    return e.Admitted(slot=Slot.A if safe is None else safe.other, target=held)


def _waits(manifest: ReleaseManifest, state: DeviceState, facts: Facts) -> e.Delayed | None:
    if state.held:
        return e.Delayed(reason=Reason.HELD, detail="an operator on the device holds updates")
    if facts.windows and not any(window.open_at(facts.minute % MINUTES_A_DAY) for window in facts.windows):
        return e.Delayed(reason=Reason.OUTSIDE_WINDOW, detail="waiting for a maintenance window")
    celsius, limit = facts.readings.temperature_celsius, manifest.thermal.start_celsius_max
    if celsius is not None and celsius > limit:
        return e.Delayed(reason=Reason.TOO_HOT, detail=f"{celsius:.1f} °C, and updates start below {limit:.0f} °C")
    if facts.readings.undervoltage:
        return e.Delayed(reason=Reason.UNDERVOLTAGE, detail="the power supply is too weak right now")
    return None


def _requirements(manifest: ReleaseManifest, facts: Facts) -> e.Refused | None:
    needs = manifest.requires
    unserved = served(manifest, version=facts.runtime, serves=facts.serves)
    if unserved is not None:
        return e.Refused(reason=unserved.reason, detail=unserved.detail)
    firmware = facts.hardware.firmware
    if needs.firmware_min and numbers(firmware) < numbers(needs.firmware_min):
        said = f"needs firmware {needs.firmware_min}, this is {firmware or 'unknown'}"
        return e.Refused(reason=Reason.FIRMWARE_TOO_OLD, detail=said)
    if needs.driver:
        name, _, least = needs.driver.partition(" ")
        mine, _, version = facts.driver.partition(" ")
        if name != mine or numbers(version) < numbers(least):
            said = f"needs driver {needs.driver}, this is {facts.driver or 'unknown'}"
            return e.Refused(reason=Reason.DRIVER_MISMATCH, detail=said)
    return None


def _unfit(variant: Variant, manifest: ReleaseManifest, facts: Facts) -> e.Refused | e.Delayed | None:
    never = unfit(variant, facts.hardware, context_tokens=manifest.context_tokens)
    if never is None and variant.lock is not None:
        never = driver_unfit(variant.name, variant.lock, facts.driver)
    if never is not None:
        return e.Refused(reason=never.reason, detail=never.detail)
    needed = variant.memory_bytes(manifest.context_tokens)
    available = facts.readings.memory_available_bytes
    if available is not None and needed > available:
        free = megabytes(available)
        said = f"{variant.name} needs {megabytes(needed)} of memory beside the serving release, {free} are free"
        return e.Delayed(reason=Reason.NO_MEMORY, detail=said)
    room = 0 if variant.digest in facts.present else variant.size_bytes + DISK_MARGIN_BYTES
    if room > facts.free_bytes:
        said = f"{variant.name} needs {megabytes(room)} of disk, {megabytes(facts.free_bytes)} are free"
        return e.Delayed(reason=Reason.NO_DISK, detail=said)
    return None
