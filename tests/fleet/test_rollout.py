"""Whole rollouts against devices that obey, on both databases."""

from __future__ import annotations

import msgspec
import pytest

from drupelet.core.states import Mode, RolloutState
from drupelet.fleet.errors import NothingToDo, NoVariant, WrongState
from drupelet.fleet.machine import Event
from drupelet.wire.manifest import Requires
from tests.fleet.world import World
from tests.wire.examples import manifest

S = RolloutState
FIVE = ("lab-1", "lab-2", "lab-3", "lab-4", "lab-5")


@pytest.fixture
def lab(world: World) -> World:
    first = world.release("1.1")
    world.add(*FIVE, site="lab")
    number = world.direct(first)
    world.until(number, S.COMPLETED)
    return world


def test_a_first_installation_reaches_all_without_a_gate(lab: World) -> None:
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.1"}


def test_a_good_release_goes_through_every_stage_and_is_committed(lab: World) -> None:
    number = lab.start(lab.release("1.2"))
    seen = [len(lab.exposed(number))]
    for _ in range(60):
        lab.turn()
        seen.append(len(lab.exposed(number)))
        if lab.fleet.reader.rollout(number).rollout.ended:
            break
    page = lab.fleet.reader.rollout(number)
    assert page.rollout.state == "completed", page.rollout.reason
    assert list(dict.fromkeys(seen)) == [0, 1, 3, 5]
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.2"}
    assert page.evidence
    assert page.verdicts[-1].kind == "pass"


@pytest.mark.parametrize("direct", [False, True])
def test_a_rollout_ends_at_its_last_stages_cap(lab: World, direct: bool) -> None:
    release = lab.release("1.2")
    number = lab.direct(release, stages=("1", "3")) if direct else lab.start(release, stages=("1", "3"))
    lab.until(number, S.COMPLETED)
    lab.turn()
    assert {device.name for device in lab.devices.values() if device.release == "kiosk/1.2"} == lab.exposed(number)
    assert len(lab.exposed(number)) == 3


def test_a_slow_release_is_rolled_back_and_condemned(lab: World) -> None:
    for device in lab.devices.values():
        device.slow = 2.0
    number = lab.start(lab.release("1.2"), stages=("3", "5"))
    page = lab.until(number, S.ROLLED_BACK)
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.1"}
    assert len(lab.exposed(number)) == 3
    assert lab.fleet.reader.release("kiosk/1.2").condemned
    assert "2.0" in page.rollout.reason or "1.9" in page.rollout.reason
    lab.turn()
    for name in FIVE:
        order = lab.order(name)
        assert order is not None
        assert [c.release for c in order.condemned] == ["kiosk/1.2"]
    with pytest.raises(WrongState, match="condemned"):
        lab.start(lab.fleet.reader.manifest("kiosk/1.2").release)


def test_a_failed_trial_halts_and_nobody_else_is_exposed(lab: World) -> None:
    for device in lab.devices.values():
        device.fails = True
    number = lab.start(lab.release("1.3"))
    page = lab.until(number, S.HALTED)
    assert len(lab.exposed(number)) == 1
    assert "canonical_failed" in page.history[1].reason or "canonical_failed" in str(page.history)
    assert not any("kiosk/1.3" in device.has for device in lab.devices.values())


@pytest.mark.parametrize(
    ("event", "ends", "condemned"), [(Event.ABORT, S.ABORTED, False), (Event.ROLLBACK, S.ROLLED_BACK, True)]
)
def test_an_operator_takes_it_back(lab: World, event: Event, ends: S, condemned: bool) -> None:
    number = lab.start(lab.release("1.2"), stages=("3", "5"))
    lab.until(number, S.JUDGING)
    lab.command(number, event)
    lab.until(number, ends)
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.1"}
    assert lab.fleet.reader.release("kiosk/1.2").condemned is condemned


def test_a_completed_rollout_can_be_rolled_back(lab: World) -> None:
    number = lab.start(lab.release("1.2"), stages=("5",))
    lab.until(number, S.COMPLETED)
    lab.command(number, Event.ROLLBACK)
    lab.until(number, S.ROLLED_BACK)
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.1"}


def test_condemning_a_release_takes_it_back(lab: World) -> None:
    release = lab.release("1.2")
    number = lab.start(release, stages=("5",))
    lab.until(number, S.COMPLETED)
    assert lab.fleet.rollouts.condemn(release, by="test", reason="bad words") == (number,)
    lab.until(number, S.ROLLED_BACK)
    assert {device.release for device in lab.devices.values()} == {"kiosk/1.1"}


def test_pause_exposes_nobody_until_resumed(lab: World) -> None:
    number = lab.start(lab.release("1.2"))
    lab.until(number, S.JUDGING)
    lab.command(number, Event.PAUSE)
    for _ in range(6):
        lab.turn()
    assert len(lab.exposed(number)) == 1
    lab.command(number, Event.RESUME)
    lab.until(number, S.COMPLETED)


def test_an_empty_selector_is_refused(lab: World) -> None:
    with pytest.raises(NothingToDo, match="no approved device matches"):
        lab.start(lab.release("1.2"), selector="site=moon")


def test_a_second_rollout_over_the_same_devices_is_refused(lab: World) -> None:
    lab.start(lab.release("1.2"))
    with pytest.raises(WrongState, match="under way"):
        lab.start(lab.release("1.3"))


def test_devices_that_run_it_already_are_left_alone(lab: World) -> None:
    with pytest.raises(NothingToDo, match="already"):
        lab.direct(lab.fleet.reader.manifest("kiosk/1.1").release)


def test_offline_canaries_are_waited_for_and_taken_back_when_they_return(lab: World) -> None:
    for device in lab.devices.values():
        device.slow = 3.0
    number = lab.start(lab.release("1.2"), stages=("5",))
    lab.until(number, S.JUDGING)
    gone = frozenset({"lab-4"})
    lab.until(number, S.ROLLING_BACK, offline=gone)
    for _ in range(3):
        lab.turn(offline=gone)
    page = lab.fleet.reader.rollout(number)
    assert (page.rollout.state, page.rollout.waits_for) == ("rolling_back", "lab-4")
    lab.until(number, S.ROLLED_BACK)
    assert lab.devices["lab-4"].release == "kiosk/1.1"


def test_orders_are_modes_in_the_order_of_the_story(lab: World) -> None:
    number = lab.start(lab.release("1.2"), stages=("1", "5"))
    lab.turn()
    (canary,) = lab.exposed(number)
    order = lab.order(canary)
    assert order is not None
    assert (order.mode, order.rollout, order.crossover is not None) == (Mode.CANARY, number, True)
    lab.until(number, S.COMMITTING, S.COMPLETED)
    lab.reconciler.look()
    order = lab.order(canary)
    assert order is not None
    assert order.mode is Mode.COMMIT


def test_a_variant_no_device_can_run_is_refused_before_it_starts(lab: World) -> None:
    plain = manifest().variants[0]
    onnx = msgspec.structs.replace(plain, name="q4", file_format="onnx")
    release = lab.release("1.2", variants=(onnx,))
    with pytest.raises(NoVariant, match=r"lab-1.* can run no variant of kiosk/1.2: q4 is onnx, and") as refused:
        lab.start(release)
    assert "narrow the selector" in refused.value.fix
    assert lab.start(lab.release("1.3", variants=(onnx, plain))) > 0


def test_a_release_for_a_newer_runtime_is_refused_before_it_starts(lab: World) -> None:
    release = lab.release("1.2", requires=Requires(runtime_min="9.0"))
    with pytest.raises(NoVariant, match=r"lab-1.* needs drupelet 9\.0, this is 0\.1\.0"):
        lab.start(release)
