"""Standing orders: each device has at most one, and every change of it takes the next serial.

The list of condemned releases travels in every order, so condemning one gives every device a new serial; mode, release
and rollout stay what they were, and a device that has obeyed already has nothing to do but remember the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from drupelet.core.states import Mode
from drupelet.fleet.store.schema import devices, releases
from drupelet.wire.codec import decode_as
from drupelet.wire.orders import CONDEMNED_MAX, Condemned, Crossover, Order

SENTENCE_MAX = 1000


@dataclass(frozen=True, slots=True)
class Draft:
    """An order before it has a device, a serial and the list of condemned releases."""

    mode: Mode
    release: str
    manifest: str
    variants: tuple[str, ...]
    rollout: int
    reason: str
    crossover: Crossover | None = None
    probation_ms: int = 60_000
    verdict_ms_max: int = 86_400_000


def condemned(connection: Connection) -> tuple[Condemned, ...]:
    """Return the newest condemned releases, oldest first."""
    rows = connection.execute(
        select(releases.c.id, releases.c.manifest_digest, releases.c.condemned_reason)
        .where(releases.c.condemned_at.is_not(None))
        .order_by(releases.c.condemned_at.desc(), releases.c.id)
        .limit(CONDEMNED_MAX)
    ).all()
    return tuple(
        Condemned(release=row.id, manifest=row.manifest_digest, reason=row.condemned_reason[:SENTENCE_MAX])
        for row in reversed(rows)
    )


def give(connection: Connection, device: str, draft: Draft, *, listed: tuple[Condemned, ...]) -> int:
    """Make `draft` the device's standing order and return its serial."""
    before = connection.execute(
        select(devices.c.order_serial).where(devices.c.id == device).with_for_update()
    ).scalar_one()
    serial = int(before) + 1
    order = Order(
        device=device,
        serial=serial,
        mode=draft.mode,
        release=draft.release,
        manifest=draft.manifest,
        variants=draft.variants,
        rollout=draft.rollout,
        reason=draft.reason[:SENTENCE_MAX],
        crossover=draft.crossover,
        probation_ms=draft.probation_ms,
        verdict_ms_max=draft.verdict_ms_max,
        condemned=listed,
    )
    connection.execute(
        update(devices)
        .where(devices.c.id == device)
        .values(order_json=msgspec.json.encode(order), order_serial=serial, order_rollout=draft.rollout)
    )
    return serial


def spread_condemned(connection: Connection) -> int:
    """Give every standing order the present list of condemned releases; return how many changed."""
    listed = condemned(connection)
    rows = connection.execute(
        select(devices.c.id, devices.c.order_json, devices.c.order_serial)
        .where(devices.c.order_json.is_not(None))
        .with_for_update()
    ).all()
    changes = []
    for row in rows:
        order = decode_as(Order, row.order_json)
        if order.condemned != listed:
            serial = row.order_serial + 1
            again = msgspec.structs.replace(order, serial=serial, condemned=listed)
            changes.append({"device": row.id, "order": msgspec.json.encode(again), "serial": serial})
    if changes:
        connection.execute(
            update(devices)
            .where(devices.c.id == bindparam("device"))
            .values(order_json=bindparam("order"), order_serial=bindparam("serial")),
            changes,
        )
    return len(changes)
