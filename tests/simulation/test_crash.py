"""Power cuts at every durable step, and lives drawn by seeds. `drupelet sim crash` takes every cut; here, a share."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.sim import crash
from drupelet.sim.device import Plan, SimDevice, Violation
from drupelet.sim.disk import Cut, PowerCut, SimDisk

STRIDE = 7
"""Coprime to the six cuts of a step, so that every step and every kind of cut is among those taken."""


@pytest.mark.parametrize("name", crash.STORIES)
def test_a_power_cut_at_any_durable_step_is_survived(name: str) -> None:
    found = crash.every_cut(crash.STORIES[name], stride=STRIDE)
    assert found.steps > 40
    assert found.cuts >= found.steps * 6 // STRIDE


@pytest.mark.parametrize("seed", range(1, 21))
def test_a_life_with_faults(seed: int) -> None:
    crash.run(seed)


def test_the_same_seed_lives_the_same_life() -> None:
    one, two = crash.run(11), crash.run(11)
    assert one.state == two.state
    assert one.disk.operations == two.disk.operations


def test_every_step_of_a_story_is_cut_before_torn_and_after() -> None:
    plans = list(crash.plans(3))
    assert len(plans) == 3 * 3 * 2
    assert {plan.how for plan in plans if plan.at == 2} == set(Cut)


def test_a_story_without_its_promise_is_noticed() -> None:
    def careless(device: SimDevice) -> None:
        crash.install(device)
        crash.expect(device.crashes == 0, "it crashed")

    with pytest.raises(Violation, match="Plan"):
        crash.every_cut(careless, stride=50)


def test_a_device_that_acts_before_it_journals_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from drupelet.agent.slots import Slots

    # A mutant: the slot that serves is written as well, as if the journal had been asked afterwards.
    def both_slots(self: Slots, slot: object, held: object) -> None:
        written(self, slot, held)  # type: ignore[arg-type]
        written(self, slot.other, held)  # type: ignore[attr-defined]

    written = Slots.write
    monkeypatch.setattr(Slots, "write", both_slots)
    with pytest.raises(Violation, match="safe slot"):
        crash.install(SimDevice())


def test_a_journal_that_lies_about_being_durable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: SimDisk, path: Path, data: bytes) -> None:
        if path.name == "log.jsonl" and b'"condemning"' in data:
            return
        appended(self, path, data)

    appended = SimDisk.append
    monkeypatch.setattr(SimDisk, "append", forgetful)
    with pytest.raises(Violation):
        crash.every_cut(crash.revert, stride=25)


def test_what_a_cut_may_lose() -> None:
    disk = SimDisk(seed=3)
    log, part = Path("/log"), Path("/part")
    disk.append(log, b"one\n")
    file = disk.part(part)
    file.write(b"x" * 100)
    file.sync()
    file.write(b"y" * 100)
    disk.cut_power_at(disk.count + 1, Cut.TORN)
    with pytest.raises(PowerCut):
        disk.append(log, b"second line\n")
    disk.power_on()
    kept = disk.read(log, bytes_max=100)
    assert kept.startswith(b"one\n")
    assert b"one\nsecond line\n".startswith(kept)
    assert 100 <= disk.size(part) <= 200


def test_plan_reads_well() -> None:
    assert "at=4" in repr(Plan(4))
