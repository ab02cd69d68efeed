"""Taking in polls: once, in time, together, and one poisoned message alone."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import func, select, update

from drupelet.core.errors import DrupeletError
from drupelet.core.states import Reason
from drupelet.fleet.errors import NoPermission, NoSuch
from drupelet.fleet.store.schema import device_events, devices, windows
from drupelet.wire.device_api import PollReply
from tests.fakes.fleet_device import FakeDevice
from tests.fleet.world import World


@pytest.fixture
def one(world: World) -> World:
    world.add("lab-1")
    return world


def stored(world: World) -> int:
    return sum(point.requests for point in world.fleet.reader.device("lab-1").series)


def test_telemetry_sent_twice_is_stored_once(one: World) -> None:
    device = one.devices["lab-1"]
    device.window(release="kiosk/1.1")
    poll = device.poll()
    (first,) = one.fleet.intake.take([poll])
    (again,) = one.fleet.intake.take([poll])
    assert isinstance(first, PollReply)
    assert first.windows_taken == 1
    assert first == again
    device.window(release="kiosk/1.1")
    one.fleet.intake.take([device.poll(), device.poll()])
    assert stored(one) == 40


def test_events_sent_twice_are_stored_once(one: World) -> None:
    device = one.devices["lab-1"]
    device._event(device.state)
    one.fleet.intake.take([device.poll()])
    one.fleet.intake.take([device.poll(), device.poll()])
    with one.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(device_events)).scalar_one() == 1


def test_what_a_device_refuses_is_in_the_audit_log_once(one: World) -> None:
    device = one.devices["lab-1"]
    device.reason = Reason.WRONG_DEVICE
    device._event(device.state)
    one.fleet.intake.take([device.poll()])
    one.fleet.intake.take([device.poll()])
    rows = [row for row in one.fleet.reader.audit().items if row.action == "device.refused"]
    assert [(row.actor, row.subject, row.reason) for row in rows] == [("device lab-1", "lab-1", "wrong_device")]


@pytest.mark.parametrize(("at_ms", "wrong"), [(10**13, True), (1_000, True), (None, False)])
def test_telemetry_from_a_wrong_clock_is_marked_and_put_at_its_arrival(
    one: World, at_ms: int | None, wrong: bool
) -> None:
    one.devices["lab-1"].window(release="kiosk/1.1", at_ms=at_ms and max(at_ms, 3000))
    one.poll()
    (point,) = one.fleet.reader.device("lab-1").series
    assert (point.clock_wrong, point.at) == (wrong, one.now)


def test_who_is_not_approved_is_refused_and_the_others_are_not(one: World) -> None:
    one.add("stranger", approve=False)
    polls = [one.devices["stranger"].poll(), one.devices["lab-1"].poll(), FakeDevice("ghost", clock=lambda: 0).poll()]
    answers = one.fleet.intake.take(polls)
    assert [type(answer) for answer in answers] == [NoPermission, PollReply, NoSuch]


def test_a_poisoned_poll_fails_alone(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.add("lab-2")
    poisoned = msgspec.structs.replace(one.devices["lab-2"].poll(), boot="x" * 64)
    huge = msgspec.structs.replace(poisoned.status, clock_ms=2**53)
    poisoned = msgspec.structs.replace(poisoned, status=huge)
    intake = one.fleet.intake
    original = intake._take

    def take(connection: object, requests: list[object], *, now: int) -> object:
        if any(getattr(r, "device", "") == "lab-2" for r in requests):
            connection.exec_driver_sql("INSERT INTO devices (id) VALUES ('x')")  # type: ignore[attr-defined]
        return original(connection, requests, now=now)  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "_take", take)
    good, bad = intake.take([one.devices["lab-1"].poll(), poisoned])
    assert isinstance(good, PollReply)
    assert isinstance(bad, DrupeletError)


def test_control_characters_do_not_reach_the_database(one: World) -> None:
    poll = msgspec.structs.replace(one.devices["lab-1"].poll(), agent_version="1\x000")
    (answer,) = one.fleet.intake.take([poll])
    assert isinstance(answer, PollReply)
    assert one.fleet.reader.device("lab-1").agent_version == "1 0"


def test_old_telemetry_is_pruned(one: World) -> None:
    one.devices["lab-1"].window()
    one.poll()
    one.now += 8 * 86_400_000
    one.reconciler.look()
    with one.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(windows)).scalar_one() == 0


def test_a_device_hears_of_a_waiting_order_and_comes_sooner(one: World) -> None:
    (idle,) = one.fleet.intake.take([one.devices["lab-1"].poll()])
    with one.store.write() as connection:
        connection.execute(update(devices).values(signed_serial=3))
    (busy,) = one.fleet.intake.take([one.devices["lab-1"].poll()])
    assert isinstance(idle, PollReply)
    assert isinstance(busy, PollReply)
    assert (busy.order_serial, busy.poll_after_ms < idle.poll_after_ms) == (3, True)
