"""Taking in polls: many devices at once, one transaction for all of them, an answer only when it is durable.

Polls that arrive while a transaction runs wait in a queue and go into the next one together (group commit), so the cost
of a sync is shared by all that wait for it. A poll that the database refuses is tried again alone, so that one poisoned
message cannot fail its neighbours.

Telemetry is stored once: what a device sends again has sequence numbers that are taken already. A row holds all new
windows of one poll. Their times are the device's: `believed` puts those in the future, or from before a Pi could have a
clock, at the time of arrival and says so; evidence is ordered by the fleet's clock alone.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import DBAPIError

from drupelet.core.errors import DrupeletError
from drupelet.core.states import UpdateState
from drupelet.fleet.changes import Changes
from drupelet.fleet.errors import NoPermission, NoSuch, StoreUnavailable, TooBusy
from drupelet.fleet.refusals import refusal_of
from drupelet.fleet.standing import failure_of
from drupelet.fleet.store.audit import clean, record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.prepared import Prepared, insert_ignore
from drupelet.fleet.store.schema import device_events, devices, members, rollouts, windows
from drupelet.wire.device_api import DeviceEvent, PollReply, PollRequest

GATHER_S = 0.004
"""A poll waits this long for others to share its transaction with: less than a sync takes on an SD card."""
BATCH_MAX = 256
"""Polls in one transaction."""
WAITING_MAX = 4_096
"""Polls that may wait; more are told to come again."""
FUTURE_MS = 60_000
"""A device's clock may be this far ahead before its times are not believed."""
CLOCK_FLOOR_MS = 1_577_836_800_000
"""2020-01-01: a device that says less has no clock yet."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When devices come again, milliseconds: usually, and while an order waits to be obeyed or is being obeyed."""

    poll_ms: int = 30_000
    active_ms: int = 5_000


@dataclass(slots=True)
class _Waiting:
    request: PollRequest
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[PollReply]


@dataclass(slots=True)
class _Known:
    """What the transaction knows of a device, growing while it takes in several polls of it."""

    state: str
    events_seq: int
    windows_seq: int
    windows_at: int | None
    order_serial: int
    signed_serial: int


class Intake:
    """The queue, the thread that empties it, and the transaction."""

    def __init__(self, store: Store, *, changes: Changes, clock: Callable[[], int], pace: Pace) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._pace = pace
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        dialect = store.engine.dialect
        self._insert_windows = insert_ignore(windows, dialect, columns=_WINDOW_COLUMNS)
        self._insert_events = insert_ignore(device_events, dialect, columns=_EVENT_COLUMNS)
        self._update_devices = Prepared(_UPDATE, dialect)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take in what waits, then end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    async def poll(self, request: PollRequest) -> PollReply:
        """Return the answer once the poll is durable."""
        if self._thread is None or self._queue.qsize() >= WAITING_MAX:
            raise TooBusy("too many polls at once", fix="come again later")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop, loop.create_future())
        self._queue.put(waiting)
        return await waiting.answer

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            time.sleep(GATHER_S)
            batch = [first]
            ending = False
            while len(batch) < BATCH_MAX and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    ending = True
                    break
                batch.append(following)
            self._serve(batch)
            if ending:
                return

    def _serve(self, batch: list[_Waiting]) -> None:
        try:
            answers = self.take([waiting.request for waiting in batch])
        except Exception as error:  # noqa: BLE001  (the thread must outlive any failure; every waiter hears of it)
            unavailable = error if isinstance(error, DrupeletError) else _broken(error)
            answers = [unavailable] * len(batch)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[PollReply], PollReply | DrupeletError]]]
        by_loop = {}
        for waiting, answer in zip(batch, answers, strict=True):
            by_loop.setdefault(waiting.loop, []).append((waiting.answer, answer))
        for loop, settled in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, settled)

    def take(self, requests: Sequence[PollRequest]) -> list[PollReply | DrupeletError]:
        """Store the polls in one transaction and return each one's answer or refusal."""
        try:
            with self._store.write() as connection:
                answers = self._take(connection, requests, now=self._clock())
        except DBAPIError as error:
            if len(requests) == 1:
                return [_broken(error)]
            return [answer for request in requests for answer in self.take([request])]
        self._changes.publish("device", *{request.device for request in requests})
        if any(refusal_of(event) for request in requests for event in request.events):
            self._changes.publish("audit")
        return answers

    def _take(
        self, connection: Connection, requests: Sequence[PollRequest], *, now: int
    ) -> list[PollReply | DrupeletError]:
        known = self._look_up(connection, {request.device for request in requests})
        answers: list[PollReply | DrupeletError] = []
        updates: dict[str, dict[str, Any]] = {}
        window_rows: list[dict[str, Any]] = []
        event_rows: list[dict[str, Any]] = []
        failures: list[tuple[str, str, int, str]] = []
        refusals: list[tuple[str, str]] = []
        for request in requests:
            device = known.get(request.device)
            if device is None or device.state == "removed":
                answers.append(NoSuch("this device is not enrolled", where=request.device, fix="enrol again"))
                continue
            if device.state != "approved":
                answers.append(NoPermission(f"the device is {device.state}", where=request.device))
                continue
            if (row := _windows_of(request, device, now=now)) is not None:
                window_rows.append(row)
            for event in request.events:
                if event.seq > device.events_seq:
                    event_rows.append(_event_row(request.device, event, now=now))
                    if why := failure_of(event):
                        failures.append((request.device, event.release, event.order_serial, why))
                    if refusal := refusal_of(event):
                        refusals.append((request.device, refusal))
            device.events_seq = max(device.events_seq, *(e.seq for e in request.events), 0)
            updates[request.device] = _update_of(request, device, now=now)
            answers.append(self._reply(request, device))
        self._insert_windows.run(connection, window_rows)
        self._insert_events.run(connection, event_rows)
        self._update_devices.run(connection, list(updates.values()))
        for failure in failures:
            _note_failure(connection, *failure)
        for name, why in refusals:
            record(connection, at=now, actor=f"device {name}", action="device.refused", subject=name, reason=why)
        return answers

    def _look_up(self, connection: Connection, names: set[str]) -> dict[str, _Known]:
        rows = connection.execute(_LOOK_UP, {"names": sorted(names)}).all()
        return {
            row[0]: _Known(
                state=row[1], events_seq=row[2], windows_seq=row[3], windows_at=row[4], order_serial=row[5],
                signed_serial=row[6]
            )
            for row in rows
        }  # fmt: skip

    def _reply(self, request: PollRequest, device: _Known) -> PollReply:
        status = request.status
        busy = status.state not in _AT_REST or status.order_serial < device.signed_serial
        return PollReply(
            poll_after_ms=self._pace.active_ms if busy else self._pace.poll_ms,
            events_taken=device.events_seq,
            windows_taken=device.windows_seq,
            order_serial=max(0, device.signed_serial),
        )


_WINDOW_COLUMNS = ("device", "last_seq", "received_at", "blocks", "windows_json")
_EVENT_COLUMNS = ("device", "seq", "received_at", "at", "after", "reason", "release", "order_serial", "event_json")
_AT_REST = (UpdateState.IDLE, UpdateState.FAILED)

_LOOK_UP = (
    select(
        devices.c.id, devices.c.state, devices.c.events_seq, devices.c.windows_seq, devices.c.windows_at,
        devices.c.order_serial, devices.c.signed_serial, devices.c.order_rollout,
    )
    .where(devices.c.id.in_(bindparam("names", expanding=True)))
    .order_by(devices.c.id)
)  # fmt: skip

_UPDATE = (
    update(devices)
    .where(devices.c.id == bindparam("device"))
    .values(
        boot=bindparam("new_boot"),
        agent_version=bindparam("new_agent"),
        hardware_json=bindparam("new_hardware"),
        board=bindparam("new_board"),
        status_json=bindparam("new_status"),
        seen_at=bindparam("new_seen"),
        clock_off_ms=bindparam("new_clock_off"),
        events_seq=bindparam("new_events"),
        windows_seq=bindparam("new_windows"),
        windows_at=bindparam("new_windows_at"),
    )
)


def _update_of(request: PollRequest, device: _Known, *, now: int) -> dict[str, Any]:
    status = request.status
    return {
        "device": request.device,
        "new_boot": request.boot,
        "new_agent": clean(request.agent_version, 64),
        "new_hardware": _encode(request.hardware),
        "new_board": clean(request.hardware.board, 64),
        "new_status": _encode(status),
        "new_seen": now,
        "new_clock_off": status.clock_ms - now if status.clock_ms else 0,
        "new_events": device.events_seq,
        "new_windows": device.windows_seq,
        "new_windows_at": device.windows_at,
    }


def _windows_of(request: PollRequest, device: _Known, *, now: int) -> dict[str, Any] | None:
    """Return the row of the windows that are new, None if none is."""
    new = [window for window in request.windows if window.seq > device.windows_seq]
    if not new:
        return None
    device.windows_seq = max(window.seq for window in new)
    device.windows_at = now
    return {
        "device": request.device,
        "last_seq": device.windows_seq,
        "received_at": now,
        "blocks": any(window.block is not None for window in new),
        "windows_json": _encode(new),
    }


def believed(at_ms: int, *, received_ms: int) -> tuple[int, bool]:
    """Return when something happened that a device says was at `at_ms`, and whether its clock was wrong."""
    wrong = at_ms > received_ms + FUTURE_MS or at_ms < CLOCK_FLOOR_MS
    return (received_ms if wrong else min(at_ms, received_ms)), wrong


def _event_row(device: str, event: DeviceEvent, *, now: int) -> dict[str, Any]:
    at, _ = believed(event.at_ms, received_ms=now)
    return {
        "device": device,
        "seq": event.seq,
        "received_at": now,
        "at": at,
        "after": event.after.value,
        "reason": event.reason.value,
        "release": event.release,
        "order_serial": event.order_serial,
        "event_json": _encode(event),
    }


def _note_failure(connection: Connection, device: str, release: str, serial: int, why: str) -> None:
    """Mark the failed update in the rollout it belongs to; the first reason stays."""
    belongs = members.c.first_serial <= serial if serial else members.c.first_serial > 0
    of_release = select(rollouts.c.id).where(rollouts.c.release == release, rollouts.c.ended_at.is_(None))
    connection.execute(
        update(members)
        .where(
            members.c.device == device,
            members.c.failure == "",
            members.c.exposed_at.is_not(None),
            belongs,
            members.c.rollout.in_(of_release),
        )
        .values(failure=clean(why))
    )


_encode = msgspec.json.Encoder().encode


def _settle(settled: list[tuple[asyncio.Future[PollReply], PollReply | DrupeletError]]) -> None:
    for future, answer in settled:
        if future.done():
            continue  # the device hung up
        if isinstance(answer, DrupeletError):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _broken(error: Exception) -> StoreUnavailable:
    said = str(error.orig) if isinstance(error, DBAPIError) else f"{type(error).__name__}: {error}"
    return StoreUnavailable(f"the poll could not be stored: {said.splitlines()[0] if said else 'no reason given'}")
