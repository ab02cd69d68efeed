"""Letting devices in: pending until an operator approves, one key a name, and bounds on who may fill the list."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from drupelet.fleet.changes import Changes
from drupelet.fleet.credentials import DEVICE_TOKEN_MS, Badges, proves_challenge, proves_enrolment
from drupelet.fleet.errors import BadToken, KeyMismatch, NoPermission, NoSuch, TooBusy, WrongState
from drupelet.fleet.store.audit import clean, record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import device_events as events_table
from drupelet.fleet.store.schema import devices, windows
from drupelet.wire.device_api import Challenge, EnrolReply, EnrolRequest, TokenReply, TokenRequest

EnrolState: TypeAlias = Literal["pending", "approved", "rejected"]

PENDING_MAX = 1_000
"""Devices that may wait for approval at once."""
ATTEMPTS_PER_MINUTE_MAX = 120
"""Calls before approval (enrol, challenge, token) that one address may make in a minute."""
ADDRESSES_MAX = 10_000
RETRY_MS = 2_000


@dataclass(slots=True)
class _Minute:
    started_ms: int
    count: int


class Throttle:
    """Counts calls by address and minute, for at most `ADDRESSES_MAX` addresses."""

    def __init__(self, *, per_minute_max: int = ATTEMPTS_PER_MINUTE_MAX) -> None:
        self._max = per_minute_max
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, address: str, *, now_ms: int) -> None:
        """Count one call, or raise `TooBusy`."""
        with self._lock:
            minute = self._minutes.get(address)
            if minute is None or now_ms - minute.started_ms >= 60_000:
                minute = self._minutes[address] = _Minute(now_ms, 0)
                self._minutes.move_to_end(address)
                if len(self._minutes) > ADDRESSES_MAX:
                    self._minutes.popitem(last=False)
            minute.count += 1
            if minute.count > self._max:
                raise TooBusy(f"more than {self._max} attempts a minute", where=address, fix="try again in a minute")


class Enrolment:
    """The way from an unknown device to a bearer token. Every call is one short transaction."""

    def __init__(self, store: Store, *, badges: Badges, changes: Changes, clock: Callable[[], int]) -> None:
        self._store = store
        self._badges = badges
        self._changes = changes
        self._clock = clock

    def enrol(self, request: EnrolRequest, *, address: str) -> EnrolReply:
        """Take a device into the list of those that wait, or say what became of it."""
        if not proves_enrolment(request.device, request.public_key, request.signature):
            raise BadToken("the enrolment is not signed with the key it offers", where=request.device)
        now = self._clock()
        mismatch = False
        with self._store.write() as connection:
            row = connection.execute(select(devices).where(devices.c.id == request.device)).one_or_none()
            if row is None:
                self._add(connection, request, address=address, now=now)
                state = "pending"
            elif row.state == "removed":
                self._again(connection, request, same_key=row.public_key == request.public_key, now=now)
                state = "pending"
            elif row.public_key != request.public_key:
                mismatch = True
                self._refuse(connection, request, address=address, now=now)
            else:
                state = row.state
        self._changes.publish("device", request.device)
        if mismatch:
            self._changes.publish("audit")
            raise KeyMismatch(
                "this device id is enrolled with another key",
                where=request.device,
                fix="choose another id, or let an operator remove the old device first",
            )
        return EnrolReply(state=cast("EnrolState", state), retry_after_ms=RETRY_MS)

    def _add(self, connection: Connection, request: EnrolRequest, *, address: str, now: int) -> None:
        self._refuse_crowd(connection)
        connection.execute(
            insert(devices).values(id=request.device, enrolled_at=now, address=clean(address, 64), **_said(request))
        )
        record(
            connection, at=now, actor=f"device {request.device}", action="device.enrolled", subject=request.device,
            reason="waits for approval", address=address, board=request.hardware.board,
        )  # fmt: skip

    def _again(self, connection: Connection, request: EnrolRequest, *, same_key: bool, now: int) -> None:
        """Let a removed device ask anew. Serials and versions go on, so that no old order can be replayed to it."""
        self._refuse_crowd(connection)
        fresh: dict[str, object] = {}
        if not same_key:  # another installation: it counts its journal and its windows from 1
            fresh = {"events_seq": 0, "windows_seq": 0, "status_json": None}
            connection.execute(delete(windows).where(windows.c.device == request.device))
            connection.execute(delete(events_table).where(events_table.c.device == request.device))
        connection.execute(
            update(devices).where(devices.c.id == request.device).values(**_said(request), **fresh, enrolled_at=now)
        )
        record(
            connection, at=now, actor=f"device {request.device}", action="device.enrolled", subject=request.device,
            reason="was removed before; waits for approval", same_key=same_key,
        )  # fmt: skip

    def _refuse(self, connection: Connection, request: EnrolRequest, *, address: str, now: int) -> None:
        connection.execute(
            update(devices)
            .where(devices.c.id == request.device)
            .values(key_conflicts=devices.c.key_conflicts + 1, key_conflict_at=now)
        )
        record(
            connection, at=now, actor=clean(address, 64) or "unknown", action="device.key_conflict",
            subject=request.device, reason="somebody offered another key under this name; refused",
            public_key=request.public_key, address=address,
        )  # fmt: skip

    def _refuse_crowd(self, connection: Connection) -> None:
        waiting = connection.execute(
            select(func.count()).select_from(devices).where(devices.c.state == "pending")
        ).scalar_one()
        if waiting >= PENDING_MAX:
            raise TooBusy(f"{waiting} devices wait for approval", fix="approve or reject some, then try again")

    def challenge(self, device: str) -> Challenge:
        """Return something to sign. Says nothing about whether the device exists."""
        return Challenge(challenge=self._badges.challenge(device, now_ms=self._clock()))

    def token(self, request: TokenRequest) -> TokenReply:
        """Return a bearer token for the proof of the key, or raise."""
        now = self._clock()
        self._badges.redeem(request.device, request.challenge, now_ms=now)
        with self._store.read() as connection:
            row = connection.execute(
                select(devices.c.public_key, devices.c.state).where(devices.c.id == request.device)
            ).one_or_none()
        key = row.public_key if row else "00" * 32
        proven = proves_challenge(request.device, key, request.challenge, request.signature)
        if row is None or not proven:
            raise BadToken("the signature is not of this device's key", where=request.device)
        if row.state != "approved":
            raise NoPermission(f"the device is {row.state}", where=request.device, fix="an operator must approve it")
        return TokenReply(token=self._badges.token(request.device, now_ms=now), expires_in_ms=DEVICE_TOKEN_MS)


class DeviceDesk:
    """What operators do with devices."""

    def __init__(self, store: Store, *, changes: Changes, clock: Callable[[], int]) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    def decide(self, device: str, *, approve: bool, by: str, reason: str = "") -> None:
        """Approve or reject a device. Doing it again changes nothing."""
        wanted = "approved" if approve else "rejected"
        with self._store.write() as connection:
            row = self._row(connection, device)
            if row == wanted:
                return
            now = self._clock()
            connection.execute(
                update(devices).where(devices.c.id == device).values(state=wanted, decided_at=now, decided_by=by)
            )
            record(connection, at=now, actor=by, action=f"device.{wanted}", subject=device, reason=reason)
        self._tell(device)

    def label(self, device: str, labels: dict[str, str | None], *, by: str) -> dict[str, str]:
        """Set labels, remove those given as None, and return all."""
        with self._store.write() as connection:
            self._row(connection, device)
            before = connection.execute(select(devices.c.labels_json).where(devices.c.id == device)).scalar_one()
            after: dict[str, str] = msgspec.json.decode(before, type=dict[str, str])
            for key, value in labels.items():
                if value is None:
                    after.pop(key, None)
                else:
                    after[key] = value
            if len(after) > LABELS_MAX:
                raise WrongState(f"a device has at most {LABELS_MAX} labels", where=device)
            connection.execute(
                update(devices).where(devices.c.id == device).values(labels_json=msgspec.json.encode(after))
            )
            record(
                connection, at=self._clock(), actor=by, action="device.labelled", subject=device,
                reason=", ".join(f"{k}={v}" if v is not None else f"{k} removed" for k, v in labels.items()),
            )  # fmt: skip
        self._tell(device)
        return after

    def remove(self, device: str, *, by: str, reason: str = "") -> None:
        """Forget a device: no token, no orders, not counted anywhere. Its name keeps its serials for ever."""
        with self._store.write() as connection:
            self._row(connection, device)
            now = self._clock()
            connection.execute(
                update(devices)
                .where(devices.c.id == device)
                .values(state="removed", decided_at=now, decided_by=by, order_json=None, order_rollout=0)
            )
            record(connection, at=now, actor=by, action="device.removed", subject=device, reason=reason)
        self._tell(device)

    def _row(self, connection: Connection, device: str) -> str:
        state = connection.execute(
            select(devices.c.state).where(devices.c.id == device).with_for_update()
        ).scalar_one_or_none()
        if state is None or state == "removed":
            raise NoSuch(f"there is no device {device!r}", fix="see: drupelet device list")
        return str(state)

    def _tell(self, device: str) -> None:
        self._changes.publish("device", device)
        self._changes.publish("audit")


LABELS_MAX = 32


def _said(request: EnrolRequest) -> dict[str, object]:
    return {
        "public_key": request.public_key,
        "state": "pending",
        "labels_json": msgspec.json.encode(request.labels),
        "hardware_json": msgspec.json.encode(request.hardware),
        "board": clean(request.hardware.board, 64),
        "simulated": request.hardware.simulated,
    }
