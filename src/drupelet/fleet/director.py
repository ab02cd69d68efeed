"""Signing orders and serving what was signed.

Signing is idempotent: a device whose standing order is newer than what is signed for it, or whose metadata nears its
expiry, gets the next version, in one transaction with its files. Dying before the commit publishes nothing; dying after
it leaves nothing to do. The versions before the newest stay for a while for devices that are in the middle of reading.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from drupelet.core.names import Digest, ReleaseId
from drupelet.fleet.errors import NoPermission, NoSuch
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import devices, director_files, releases
from drupelet.trust.director import Director
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import decode_as
from drupelet.wire.manifest import manifest_path
from drupelet.wire.orders import Order

LIFETIME = timedelta(days=7)
"""How long a device accepts its metadata; it is signed anew at half of this."""
VERSIONS_KEPT = 3
BATCH_MAX = 200
"""Devices signed in one transaction."""


class Desk:
    """The director's desk: what must be signed, and what may be read."""

    def __init__(
        self, store: Store, *, director: Director, clock: Callable[[], int], lifetime: timedelta = LIFETIME
    ) -> None:
        self._store = store
        self._director = director
        self._clock = clock
        self._lifetime = lifetime

    def sign_due(self) -> int:
        """Sign for every device that needs it and return for how many."""
        signed = 0
        while True:
            with self._store.write() as connection:
                now = self._clock()
                rows = connection.execute(_due(now)).all()
                for row in rows:
                    self._sign(connection, row, now=now)
            signed += len(rows)
            if len(rows) < BATCH_MAX:
                return signed

    def _sign(self, connection: Connection, row: Row[Any], *, now: int) -> None:
        order, target = self._order(connection, row.order_json)
        version = row.director_version + 1
        moment = datetime.fromtimestamp(now / 1000, UTC)
        made = self._director.sign(
            device=row.id, order=order, target=target, version=version, now=moment, expires=moment + self._lifetime
        )
        again = [name for name in made.files if not name[0].isdigit()]
        connection.execute(
            delete(director_files).where(
                director_files.c.device == row.id,
                or_(director_files.c.name.in_(again), director_files.c.version <= version - VERSIONS_KEPT),
            )
        )
        connection.execute(
            insert(director_files),
            [{"device": row.id, "name": n, "version": version, "body": body} for n, body in made.files.items()],
        )
        half = int(self._lifetime.total_seconds() * 500)
        connection.execute(
            update(devices)
            .where(devices.c.id == row.id)
            .values(signed_serial=row.order_serial, director_version=version, signed_until=now + half)
        )

    def _order(self, connection: Connection, data: bytes | None) -> tuple[Order | None, TargetInfo | None]:
        if data is None:
            return None, None
        order = decode_as(Order, data, where="standing order")
        length = connection.execute(
            select(releases.c.manifest_length).where(releases.c.id == order.release)
        ).scalar_one()
        path = manifest_path(ReleaseId.parse(order.release))
        return order, TargetInfo(path, int(length), Digest.parse(order.manifest))

    def file(self, device: str, name: str) -> bytes:
        """Return a file of the device's director repository; raises `NoSuch`, or `NoPermission` when not approved."""
        with self._store.read() as connection:
            state = connection.execute(select(devices.c.state).where(devices.c.id == device)).scalar_one_or_none()
            if state != "approved":
                raise NoPermission(f"the device is {state or 'not enrolled'}", where=device)
            if name in self._director.roots:
                return self._director.roots[name]
            body = connection.execute(
                select(director_files.c.body).where(director_files.c.device == device, director_files.c.name == name)
            ).scalar_one_or_none()
        if body is None:
            raise NoSuch(f"there is no {name[:80]}", where=device)
        return bytes(body)


def _due(now: int) -> Any:
    return (
        select(devices.c.id, devices.c.order_json, devices.c.order_serial, devices.c.director_version)
        .where(
            devices.c.state == "approved",
            or_(devices.c.order_serial > devices.c.signed_serial, devices.c.signed_until < now),
        )
        .order_by(devices.c.id)
        .limit(BATCH_MAX)
        .with_for_update(skip_locked=True)
    )
