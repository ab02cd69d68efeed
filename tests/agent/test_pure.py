"""Preflight, trial, crossover, back-off: decisions from values."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from drupelet.agent import events as e
from drupelet.agent import preflight, trial
from drupelet.agent.crossover import Pair, may_draw
from drupelet.agent.effects import Readings
from drupelet.agent.hardware import board_of, memory_bytes, pretty_name
from drupelet.agent.heartbeat import Backoff
from drupelet.agent.preflight import Daily, Facts
from drupelet.core.names import Slot
from drupelet.core.states import Reason
from drupelet.wire.control import PromptResult, TrialReport
from drupelet.wire.device_api import Hardware
from drupelet.wire.manifest import Budgets, Requires, ThermalProfile
from drupelet.wire.orders import Condemned, Crossover
from drupelet.wire.runtime import Serves
from tests.agent.states import manifest_digest, order, resting
from tests.wire import examples

MANIFEST = examples.manifest()
GB = 1_000_000_000
HARDWARE = Hardware(board="pi5-8gb", architecture="aarch64", memory_bytes=8 * GB, cores=4)
FACTS = Facts(
    hardware=HARDWARE,
    readings=Readings(temperature_celsius=50.0, memory_available_bytes=4 * GB),
    free_bytes=10 * GB,
    runtime="0.1.0",
)
PLAN = Crossover(block_ms=1000, discard_ms=100, pairs_max=2)


def facts(**changes: object) -> Facts:
    return dataclasses.replace(FACTS, **changes)  # type: ignore[arg-type]


def test_a_fitting_release_goes_to_the_slot_that_does_not_serve() -> None:
    answer = preflight.judge(order(), MANIFEST, resting(), FACTS)
    assert isinstance(answer, e.Admitted)
    assert (answer.slot, answer.target.variant) == (Slot.B, "q8_0")


@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        ({"free_bytes": 1000}, e.Delayed, Reason.NO_DISK),
        ({"readings": Readings(temperature_celsius=80.0)}, e.Delayed, Reason.TOO_HOT),
        ({"readings": Readings(throttled={"undervoltage": True})}, e.Delayed, Reason.UNDERVOLTAGE),
        ({"readings": Readings(memory_available_bytes=1000)}, e.Delayed, Reason.NO_MEMORY),
        ({"windows": (Daily(120, 300),), "minute": 400}, e.Delayed, Reason.OUTSIDE_WINDOW),
        ({"hardware": msgspec.structs.replace(HARDWARE, memory_bytes=1000)}, e.Refused, Reason.NO_MEMORY),
        ({"runtime": "0.0.9"}, e.Refused, Reason.RUNTIME_TOO_OLD),
        ({"serves": Serves(models_min={"kiosk": "9.0"})}, e.Refused, Reason.RELEASE_TOO_OLD),
    ],
)
def test_what_preflight_waits_for_and_what_it_refuses(changed: dict[str, object], kind: type, reason: Reason) -> None:
    answer = preflight.judge(order(), MANIFEST, resting(), facts(**changed))
    assert type(answer) is kind
    assert answer.reason is reason
    assert answer.detail


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        (Requires(firmware_min="2026-01-01"), Reason.FIRMWARE_TOO_OLD),
        (Requires(driver="hailo 5.1.0"), Reason.DRIVER_MISMATCH),
        (Requires(runtime_min="9.0"), Reason.RUNTIME_TOO_OLD),
    ],
)
def test_what_a_release_asks_for_by_name_must_be_known(requires: Requires, reason: Reason) -> None:
    answer = preflight.judge(order(), examples.manifest(requires=requires), resting(), FACTS)
    assert isinstance(answer, e.Refused)
    assert answer.reason is reason


def test_what_the_device_has_satisfies_what_is_asked() -> None:
    requires = Requires(firmware_min="2026-01-01", driver="hailo 5.1.0", runtime_min="0.1")
    mine = facts(hardware=msgspec.structs.replace(HARDWARE, firmware="2026-03-01"), driver="hailo 5.2")
    assert isinstance(preflight.judge(order(), examples.manifest(requires=requires), resting(), mine), e.Admitted)


def test_condemned_comes_before_everything_and_hold_after_what_can_never_be() -> None:
    gone = Condemned(release="kiosk/1.2", manifest=manifest_digest("1.2"), reason="slow")
    held = resting(held=True)
    assert preflight.judge(order(), MANIFEST, held, FACTS).reason is Reason.HELD
    assert preflight.judge(order(variants=("q2",)), MANIFEST, held, FACTS).reason is Reason.NO_VARIANT
    condemned = resting(condemned=(gone,))
    assert preflight.judge(order(), MANIFEST, condemned, facts(free_bytes=0)).reason is Reason.CONDEMNED


def test_unknown_sensors_are_not_bad() -> None:
    cool = examples.manifest(thermal=ThermalProfile(start_celsius_max=1.0))
    assert isinstance(preflight.judge(order(), cool, resting(), facts(readings=Readings())), e.Admitted)


@pytest.mark.parametrize(
    ("window", "minute", "is_open"),
    [
        (Daily(60, 120), 60, True),
        (Daily(60, 120), 120, False),
        (Daily(1380, 60), 30, True),
        (Daily(1380, 60), 90, False),
    ],
)
def test_maintenance_windows_may_cross_midnight(window: Daily, minute: int, is_open: bool) -> None:
    assert window.open_at(minute) is is_open


def report(text: str = "We open at nine.", **changes: object) -> TrialReport:
    fields: dict[str, object] = {
        "id": "hours", "text": text, "tokens": 5, "ttft_ms": 30.0, "answer_ms": 90.0, "tokens_per_second": 60.0,
    }  # fmt: skip
    return TrialReport(results=(PromptResult(**(fields | changes)),), memory_bytes=80)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budgets", "given", "reason"),
    [
        (Budgets(), report(), Reason.NONE),
        (Budgets(), report("We are closed."), Reason.CANONICAL_FAILED),
        (Budgets(), report(error="timeout"), Reason.CANONICAL_FAILED),
        (Budgets(), report(id="other"), Reason.CANONICAL_FAILED),
        (Budgets(ttft_ms_max=20), report(), Reason.TOO_SLOW),
        (Budgets(answer_ms_max=80), report(), Reason.TOO_SLOW),
        (Budgets(tokens_per_second_min=61.0), report(), Reason.TOO_SLOW),
        (Budgets(load_ms_max=499), report(), Reason.TOO_SLOW),
        (Budgets(memory_bytes_max=79), report(), Reason.MEMORY_EXCEEDED),
        (Budgets(temperature_celsius_max=60.0), report(), Reason.TOO_HOT),
        (Budgets(load_ms_max=500, ttft_ms_max=30, memory_bytes_max=80), report(), Reason.NONE),
    ],
)
def test_a_trial_is_judged_by_words_and_absolute_budgets(budgets: Budgets, given: TrialReport, reason: Reason) -> None:
    judged = trial.judge(given, examples.manifest(budgets=budgets), load_ms=500, temperature_celsius=61.0)
    assert judged.reason is reason
    assert judged.passed is (reason is Reason.NONE)
    assert judged.detail


@pytest.mark.parametrize(
    ("new_first", "at_ms", "arm"),
    [
        (True, 0, "new"),
        (True, 999, "new"),
        (True, 1000, "old"),
        (True, 9999, "old"),
        (False, 0, "old"),
        (False, 1000, "new"),
    ],
)
def test_blocks_of_a_pair(new_first: bool, at_ms: int, arm: str | None) -> None:
    pair = Pair(3, new_first, 5_000)
    assert pair.arm_at(5_000 + at_ms, PLAN) == arm
    label = pair.label("new", serial=8)
    assert (label.serial, label.pair, label.first) == (8, 3, "new" if new_first else "old")


def test_pairs_are_bounded_and_blocks_change_when_said() -> None:
    assert may_draw(1, PLAN)
    assert not may_draw(2, PLAN)
    pair = Pair(0, True, 100)
    assert pair.change_at_ms(PLAN) == 1100


def test_a_pair_is_over_only_after_both_blocks_ran_in_full() -> None:
    pair = Pair(0, True, 100).routed("new", 150, begun=False)
    assert pair.began_ms == 150
    late = pair.routed("old", 7_000, begun=True)
    assert (late.change_at_ms(PLAN), late.arm_at(7_999, PLAN), late.arm_at(8_000, PLAN)) == (8_000, "old", None)
    assert pair.routed("new", 200, begun=True) == pair


def test_backoff_doubles_up_to_its_bound_with_jitter() -> None:
    steady = Backoff(first_ms=1000, most_ms=8000, jitter=lambda: 1.0)
    assert [steady.failed() for _ in range(5)] == [1000, 2000, 4000, 8000, 8000]
    steady.worked()
    assert steady.failed() == 1000
    early = Backoff(first_ms=1000, most_ms=8000, jitter=lambda: 0.0)
    assert early.failed() == 500


@pytest.mark.parametrize(
    ("model", "memory", "board"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", 8_200_000_000, "pi5-8gb"),
        ("Raspberry Pi 4 Model B Rev 1.4\0", 1_950_000_000, "pi4-2gb"),
        ("Raspberry Pi Zero 2 W Rev 1.0\0", 450_000_000, "pizero2-1gb"),
        ("Raspberry Pi Compute Module 4 Rev 1.0\0", 4_100_000_000, "cm4-4gb"),
    ],
)
def test_boards_are_named_by_kind_and_memory(model: str, memory: int, board: str) -> None:
    assert board_of(model, memory) == board


def test_machine_files_that_say_nothing() -> None:
    assert memory_bytes("") == 0
    assert memory_bytes("MemTotal:  8000 kB\n") == 8_192_000
    assert pretty_name('NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12"\n') == "Debian GNU/Linux 12"
