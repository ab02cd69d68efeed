"""Stages: the decision as a table, whole rollouts through every service, and interruptions anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.errors import BadInput, Conflict, NotFound
from drupelet.drivers.port import Answer, Plan, Service, Stage, State
from drupelet.drivers.staged import Move, Staged, cohort, draw, next_move
from drupelet.durable import PosixDisk
from tests.drivers.worlds import WORLDS, World, devices

STAGES = tuple(map(Stage.parse, ("1%", "25%", "100%")))
D, F, P = Answer.DONE, Answer.FAILED, Answer.PENDING


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = WORLDS[request.param](8)
    yield made
    made.server.close()


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def plan(world: World, **changes: object) -> Plan:
    made = Plan(name="r", artifact=world.artifact, group=world.group, stages=STAGES)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def staged(
    world: World,
    folder: Path,
    *,
    service: Service | None = None,
    clock: Callable[[], int] | None = None,
    **changes: object,
) -> Staged:
    return Staged(
        service or world.service,
        plan(world, **changes),
        notes=folder / "r.json",
        disk=PosixDisk(),
        now_ms=clock or Clock(),
    )


@pytest.mark.parametrize(
    ("deployed", "answers", "soak_ms", "move"),
    [
        (0, [], 0, Move.DEPLOY),
        (0, [], 5_000, Move.DEPLOY),
        (1, [P], 0, Move.WAIT),
        (1, [D], 0, Move.DEPLOY),
        (1, [D], 1, Move.WAIT),
        (1, [F], 0, Move.TAKE_BACK),
        (1, [F], 9, Move.TAKE_BACK),
        (2, [D, F, P], 0, Move.TAKE_BACK),
        (3, [D, D, P], 0, Move.WAIT),
        (3, [D, D, D], 0, Move.FINISH),
        (3, [D, D, D], 1, Move.WAIT),
    ],
)
def test_the_next_move(deployed: int, answers: list[Answer], soak_ms: int, move: Move) -> None:
    decision = next_move(stages=3, deployed=deployed, answers=answers, failures_max=0, soak_ms=soak_ms)
    assert (decision.move, bool(decision.why)) == (move, True)


def test_some_failures_may_be_accepted() -> None:
    assert next_move(stages=1, deployed=1, answers=[D, F], failures_max=1).move is Move.FINISH
    assert next_move(stages=1, deployed=1, answers=[F, F], failures_max=1).move is Move.TAKE_BACK


@given(st.sets(st.text("abc", min_size=1), min_size=1, max_size=60), st.text())
def test_cohorts_share_the_draw_among_them(names: set[str], seed: str) -> None:
    order = draw(tuple(names), seed=seed)
    assert order == draw(tuple(sorted(names)), seed=seed)
    parts = [cohort(STAGES, order, stage) for stage in range(3)]
    assert [device for part in parts for device in part] == list(order)
    assert len(parts[0]) >= 1


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1", "1.5", "", "x", "25 %", "9999999"])
def test_a_stage_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Stage.parse(text)


def test_a_plan_that_makes_no_sense_is_refused(world: World) -> None:
    for changes in ({"stages": ()}, {"stages": STAGES[::-1]}, {"name": "../x"}, {"artifact": ""}, {"name": "x" * 300}):
        with pytest.raises(BadInput):
            plan(world, **changes)


def test_a_good_release_reaches_everybody_stage_by_stage(world: World, tmp_path: Path) -> None:
    rollout = staged(world, tmp_path)
    exposed = []
    while not (seen := rollout.step()).state.ended:
        exposed.append(seen.exposed)
        for device in rollout.notes.order[: seen.exposed]:
            world.succeed(device)
    assert seen.state is State.COMPLETED
    assert exposed == sorted(exposed)
    assert set(exposed) == {1, 2, 8}
    assert {world.has(device) for device in devices(8)} == {world.artifact}
    assert staged(world, tmp_path).step().state is State.COMPLETED, "run again, it is still over"


def test_one_failure_takes_it_back_from_all(world: World, tmp_path: Path) -> None:
    clock = Clock()
    rollout = staged(world, tmp_path, clock=clock)
    rollout.step()
    first = rollout.notes.order[0]
    world.succeed(first)
    rollout.step()
    before = world.has(rollout.notes.order[5])
    if world.fail is not None:
        world.fail(rollout.notes.order[1])
    else:  # a service without a word for failure: silence is what fails
        clock.ms += 86_400_001
    seen = rollout.step()
    assert seen.state is State.TAKEN_BACK
    assert "1 of 2 devices failed" in seen.says
    world.succeed(first)
    assert world.has(first) == before
    assert rollout.step() == dataclasses.replace(seen, done=0, failed=0), "nothing more is done"
    assert seen.exposed == 2


def test_silence_never_passes_and_fails_in_the_end(world: World, tmp_path: Path) -> None:
    clock = Clock()
    rollout = staged(world, tmp_path, clock=clock, answer_ms_max=60_000)
    for _ in range(3):
        clock.ms += 20_000
        assert rollout.step().state is State.RUNNING
    clock.ms += 20_001
    assert rollout.step().exposed == 1
    assert rollout.step().state is State.TAKEN_BACK


def test_a_stage_soaks(world: World, tmp_path: Path) -> None:
    clock = Clock()
    rollout = staged(world, tmp_path, clock=clock, soak_ms=1_000)
    rollout.step()
    world.succeed(rollout.notes.order[0])
    assert rollout.step().exposed == 1
    clock.ms += 1_000
    assert rollout.step().exposed == 2


def test_a_person_aborts_it(world: World, tmp_path: Path) -> None:
    rollout = staged(world, tmp_path)
    rollout.step()
    seen = staged(world, tmp_path).abort("customers complain")
    assert seen.state is State.TAKEN_BACK
    assert "customers complain" in seen.says


def test_notes_of_another_rollout_are_not_gone_on_with(world: World, tmp_path: Path) -> None:
    staged(world, tmp_path)
    for changes in ({"artifact": "other"}, {"stages": STAGES[:2]}, {"group": "other"}):
        with pytest.raises(Conflict, match="notes of another rollout"):
            staged(world, tmp_path, **changes)
    (tmp_path / "r.json").write_bytes(b"{")
    with pytest.raises(BadInput):
        staged(world, tmp_path)


def test_a_group_without_devices_is_refused(tmp_path: Path) -> None:
    empty = WORLDS["mender"](0)
    try:
        with pytest.raises(NotFound, match="no devices"):
            staged(empty, tmp_path)
    finally:
        empty.server.close()


class PowerCut(Exception):
    """Not an error of ours: nothing may handle it."""


class CutService:
    """A service on whose nth call this side dies, before the call or after it."""

    def __init__(self, inner: Service, *, at: int, after: bool) -> None:
        self._inner, self._at, self._after, self.calls = inner, at, after, 0
        self.name, self.takes_back = inner.name, inner.takes_back

    def __getattr__(self, name: str) -> object:
        act = getattr(self._inner, name)

        def call(*arguments: object, **named: object) -> object:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise PowerCut
            answer = act(*arguments, **named)
            if self.calls == self._at:
                raise PowerCut
            return answer

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after it"])
@pytest.mark.parametrize("kind", WORLDS)
def test_interrupted_anywhere_it_goes_on_and_deploys_each_stage_once(kind: str, after: bool, tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        world = WORLDS[kind](4)
        folder = tmp_path / str(at)
        folder.mkdir()
        cut = CutService(world.service, at=at, after=after)
        try:
            finished = _run(world, folder, cut)
        except PowerCut:
            finished = _run(world, folder, world.service)
        world.server.close()
        assert finished == (State.COMPLETED, {world.artifact})
        assert world.deployments() in (0, 3)
        if cut.calls < at:
            assert at > 8
            return


def _run(world: World, folder: Path, service: Service) -> tuple[State, set[str]]:
    stages = tuple(map(Stage.parse, ("1", "2", "4")))
    rollout = staged(world, folder, service=service, stages=stages)
    while not (seen := rollout.step()).state.ended:
        for device in rollout.notes.order[: seen.exposed]:
            if world.has(device) != world.artifact:
                world.succeed(device)
    return seen.state, {world.has(device) for device in devices(4)}
