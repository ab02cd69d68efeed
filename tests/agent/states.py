"""Device states and orders to vary in tests of the agent."""

from __future__ import annotations

import msgspec

from drupelet.agent.model import DeviceState, Held, Standing, Update
from drupelet.core.names import Slot
from drupelet.core.states import Mode, UpdateState
from drupelet.wire.orders import Order
from tests.wire import examples

OLD_DIGEST = "sha256:" + "01" * 32
NEW_DIGEST = "sha256:" + "02" * 32


def order(mode: Mode = Mode.CANARY, *, serial: int = 2, version: str = "1.2", **changes: object) -> Order:
    """An order for `kiosk/<version>` whose manifest digest follows from the version."""
    fields = {"serial": serial, "mode": mode, "release": f"kiosk/{version}", "manifest": manifest_digest(version)}
    return examples.order(**(fields | changes))


def manifest_digest(version: str) -> str:
    """A digest that belongs to a version."""
    return "sha256:" + f"{int(version.replace('.', '')):02x}" * 32


def held(version: str, standing: Standing = Standing.GOOD, digest: str = OLD_DIGEST) -> Held:
    """What a slot holds."""
    return Held(
        release=f"kiosk/{version}",
        manifest=manifest_digest(version),
        variant="q8_0",
        digest=digest,
        size_bytes=100,
        document=examples.manifest(version=version),
        standing=standing,
    )


def resting(**changes: object) -> DeviceState:
    """A device that committed 1.1 in slot a and rests."""
    base = DeviceState(serial=1, slots={Slot.A: held("1.1")}, committed=Slot.A, serving=Slot.A)
    return msgspec.structs.replace(base, **changes)


def both(**changes: object) -> DeviceState:
    """A device that committed 1.2 in slot b and still holds 1.1 in slot a."""
    slots = {Slot.A: held("1.1"), Slot.B: held("1.2", digest=NEW_DIGEST)}
    return resting(**({"slots": slots, "committed": Slot.B, "serving": Slot.B, "serial": 2} | changes))


def in_flight(state: UpdateState, *, mode: Mode = Mode.CANARY, **changes: object) -> DeviceState:
    """A device with 1.1 in slot a that brings 1.2 to slot b and stands in `state`."""
    new = held("1.2", Standing.TRIED, NEW_DIGEST)
    written = state in (
        UpdateState.TRIAL,
        UpdateState.SWITCHING,
        UpdateState.PROBATION,
        UpdateState.COMMITTING,
        UpdateState.REVERTING,
    )
    slots = {Slot.A: held("1.1")} | ({Slot.B: new} if written else {})
    update = Update(order=order(mode), slot=Slot.B, target=new, back_to=Slot.A)
    return resting(state=state, serial=2, slots=slots, update=update, **changes)
