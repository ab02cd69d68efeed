"""Wrong clocks: a device without a battery must neither be bricked nor fooled by the time it believes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.states import Reason
from drupelet.trust import NotTrusted
from drupelet.trust.clock import CLOCK_AHEAD_MAX, clock_is_believed, parsed, reference_time, written
from drupelet.trust.errors import ClockUnlikely
from tests.fakes.trust_world import NOON, TrustWorld

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAR = datetime(2040, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))


@given(clock=MOMENTS, floor=MOMENTS)
def test_the_reference_is_never_before_the_floor_nor_far_past_it(clock: datetime, floor: datetime) -> None:
    reference = reference_time(clock=clock, floor=floor)
    assert floor <= reference <= floor + CLOCK_AHEAD_MAX
    assert reference in {clock, floor}


@pytest.mark.parametrize(("clock", "believed"), [(EPOCH, False), (NOON + timedelta(days=700), True), (FAR, False)])
def test_which_clocks_are_believed(clock: datetime, believed: bool) -> None:
    assert clock_is_believed(clock=clock, floor=NOON) is believed


def test_moments_are_written_and_read_back() -> None:
    assert written(NOON) == "2026-11-23T12:00:00Z"
    assert parsed(written(NOON)) == NOON
    assert parsed("yesterday") is None


@pytest.mark.parametrize("clock", [EPOCH, FAR])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_device_with_a_wrong_clock_goes_on_updating(world: TrustWorld, clock: datetime, fresh: bool) -> None:
    device = world.device()
    if not fresh:
        order = world.command(world.release("1.1"), serial=1)
        device.refresh_director()
        device.vouch(order)
    target = world.release("1.2")
    order = world.order(target, serial=2)
    world.serve(world.sign(order, target))
    world.clock = clock
    assert device.refresh_director() == order
    assert device.vouch(order).version == "1.2"


def test_a_clock_months_ahead_refuses_only_as_long_as_it_is_wrong(world: TrustWorld) -> None:
    order = world.command(world.release("1.1"), serial=1)
    device = world.device()
    device.refresh_director()
    device.vouch(order)
    world.clock = NOON + timedelta(days=90)
    with pytest.raises(NotTrusted) as caught:
        device.refresh_director()
    assert caught.value.reason is Reason.EXPIRED
    assert device.order == order
    world.clock = NOON + timedelta(hours=1)
    assert device.refresh_director() == order
    assert device.vouch(order).version == "1.1"


@pytest.mark.parametrize("clock", [EPOCH, FAR])
def test_a_wrong_clock_does_not_revive_what_signatures_prove_expired(world: TrustWorld, clock: datetime) -> None:
    """The image repository was signed after the director's expiry: no clock makes that order current again."""
    target = world.release("1.1")
    world.serve(world.sign(world.order(target, serial=1), target, lifetime=timedelta(days=7)))
    device = world.device()
    world.clock = NOON + timedelta(days=20)
    world.images.refresh_timestamp()
    device.images.look_up(target.path)
    world.clock = clock
    with pytest.raises(NotTrusted) as caught:
        device.refresh_director()
    assert caught.value.reason is Reason.EXPIRED


def test_only_signed_times_move_the_floor(world: TrustWorld) -> None:
    order = world.command(world.release("1.1"), serial=1)
    device = world.device()
    world.clock = NOON + timedelta(days=5)
    device.refresh_director()
    device.vouch(order)
    assert device.images.floor() == NOON
    world.images.refresh_timestamp()
    device.vouch(order)
    assert device.images.floor() == NOON + timedelta(days=5)


def test_a_fleet_server_from_the_future_does_not_move_the_floor(world: TrustWorld) -> None:
    target = world.release("1.1")
    world.clock = FAR
    order = world.order(target, serial=1)
    world.serve(world.sign(order, target))
    world.clock = NOON
    device = world.device()
    device.refresh_director()
    assert device.images.floor() == NOON
    later = world.command(target, serial=2)
    assert device.refresh_director() == later


@pytest.mark.parametrize("clock", [EPOCH, FAR, NOON - timedelta(seconds=1)])
def test_a_signer_with_a_wrong_clock_is_stopped(world: TrustWorld, clock: datetime) -> None:
    world.clock = clock
    with pytest.raises(ClockUnlikely, match="clock"):
        world.images.refresh_timestamp()
    with pytest.raises(ClockUnlikely):
        world.release("1.1")
