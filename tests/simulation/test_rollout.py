"""Rollouts over simulated fleets: named scenarios, lives drawn by seeds, and mutants that must be caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from drupelet.cli.main import main
from drupelet.core.states import Mode
from drupelet.core.states import RolloutState as S
from drupelet.fleet import assess, plan
from drupelet.fleet.machine import TAKING_BACK, Event
from drupelet.gate import Kind
from drupelet.sim import rollout
from drupelet.sim.device import Violation
from drupelet.sim.rollout import Draw, Ending
from drupelet.sim.world import World


def story(draw: Draw, *, seed: int = 3) -> Ending:
    return rollout.tell(World(seed=seed, count=draw.devices), draw)


@pytest.mark.parametrize("seed", range(1, 21))
def test_a_fleets_life_with_faults(seed: int) -> None:
    rollout.run(seed)


def test_the_same_seed_lives_the_same_life() -> None:
    assert rollout.run(5).world.decisions == rollout.run(5).world.decisions


@pytest.mark.parametrize(
    ("draw", "ends", "exposed"),
    [
        (Draw(kind="good", stages=("1", "3", "100%")), S.COMPLETED, 4),
        (Draw(kind="good", stages=("1", "2")), S.COMPLETED, 2),
        (Draw(kind="nonsense", stages=("2", "100%")), S.HALTED, 2),
        (Draw(kind="not loading"), S.HALTED, 1),
        (Draw(kind="crashing"), S.HALTED, 1),
        (Draw(kind="slow"), S.ROLLED_BACK, 1),
        (Draw(kind="failing", stages=("2", "100%")), S.ROLLED_BACK, 2),
        (Draw(operator=Event.ABORT, operator_at_ms=20_000), S.ABORTED, 1),
        (Draw(operator=Event.PAUSE, operator_at_ms=20_000), S.COMPLETED, 4),
        (Draw(kind="good", lost=True, stages=("2", "100%")), S.ROLLED_BACK, 2),
    ],
    ids=lambda value: f"{value.kind}-{value.operator}" if isinstance(value, Draw) else None,
)
def test_how_a_release_ends(draw: Draw, ends: S, exposed: int) -> None:
    ending = story(draw)
    assert (ending.rollout.state, len(ending.rollout.exposed)) == (ends, exposed)
    assert any(ending.rollout.state.value in line for line in ending.lines)


def test_a_failed_update_that_is_allowed_leaves_the_stage_to_a_person() -> None:
    ending = story(Draw(kind="nonsense", failures_max=1))
    assert ending.rollout.state is S.ABORTED
    assert not ending.waits


# Mutants: each breaks one promise, and the world must notice.

ordered = plan.orders


def ignores_the_cap(model: plan.Model) -> tuple[tuple[str, Mode], ...]:
    return ordered(replace(model, caps=(99,)) if model.state is S.STAGING else model)


def installs_beyond_the_last_stage(model: plan.Model) -> tuple[tuple[str, Mode], ...]:
    beyond = tuple((m.device, Mode.INSTALL) for m in model.members if not m.exposed)
    return ordered(model) or (beyond if model.state is S.COMMITTING else ())


def forgets_a_device(model: plan.Model) -> tuple[tuple[str, Mode], ...]:
    given = ordered(model)
    return given[1:] if model.state in TAKING_BACK else given


def takes_it_again(model: plan.Model) -> tuple[tuple[str, Mode], ...]:
    given = ordered(model)
    return tuple((device, Mode.INSTALL) for device, _ in given) if model.state in TAKING_BACK else given


@pytest.mark.parametrize(
    ("mutant", "draw", "says"),
    [
        (ignores_the_cap, Draw(), "whose cap is 1"),
        (installs_beyond_the_last_stage, Draw(stages=("1", "2")), "whose cap is 2"),
        (forgets_a_device, Draw(kind="slow", stages=("3", "100%")), "still rolling_back in peace"),
        (takes_it_again, Draw(kind="slow"), "which is condemned"),
    ],
)
def test_a_plan_that_breaks_a_promise_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    mutant: Callable[[plan.Model], tuple[tuple[str, Mode], ...]],
    draw: Draw,
    says: str,
) -> None:
    monkeypatch.setattr(plan, "orders", mutant)
    with pytest.raises(Violation, match=says):
        story(draw)


def test_a_rollback_that_ends_too_soon_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_taken_back", lambda model: plan.Decision(reason="surely", event=Event.TAKEN_BACK))
    with pytest.raises(Violation, match=r"still has it|serves"):
        story(Draw(kind="slow", stages=("3", "100%")))


def test_a_gate_that_condemns_without_evidence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = assess.assess
    monkeypatch.setattr(
        "drupelet.sim.server.assess", lambda *args, **given: replace(judged(*args, **given), kind=Kind.ROLLBACK)
    )
    with pytest.raises(Violation, match="without evidence"):
        story(Draw())


def test_a_gate_that_passes_all_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = assess.assess
    monkeypatch.setattr(
        "drupelet.sim.server.assess", lambda *args, **given: replace(judged(*args, **given), kind=Kind.PASS)
    )
    with pytest.raises(Violation, match="slow was completed"):
        story(Draw(kind="slow"))


def test_the_command_tells_the_story(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sim", "run", "--seed", "7"])
    said = capsys.readouterr().out
    assert (ended.value.code or 0, said.splitlines()[0]) == (0, "seed 7")
    assert "one device" in said
    with pytest.raises(SystemExit):
        main(["sim", "run", "--seed", "7", "-o", "json"])
    assert json.loads(capsys.readouterr().out)[0]["seed"] == 7
    monkeypatch.setattr(plan, "orders", ignores_the_cap)
    with pytest.raises(SystemExit) as ended:
        main(["sim", "run", "--seed", "7"])
    assert ended.value.code == 8
    assert "whose cap is" in capsys.readouterr().err
