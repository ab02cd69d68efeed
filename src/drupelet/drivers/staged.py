"""Stages through a service that has none, or whose stages look at nothing.

`next_move` decides (pure); `Staged` asks the service, writes down what it is about to do, and does it. The notes are
one small file, replaced as a whole, so that a run that was interrupted anywhere goes on with the next one: a deployment
carries the rollout's name and stage, and a service asked twice for it answers with the one that there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from drupelet.core.errors import Conflict, NotFound
from drupelet.drivers.port import DEVICES_MAX, Answer, Plan, Seen, Service, Stage, State
from drupelet.durable import Disk
from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.fields import EpochMs

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=1000)]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's deployment: to whom, and as what the service knows it (empty until it has answered)."""

    devices: Annotated[tuple[Id, ...], Meta(max_length=DEVICES_MAX)]
    began_at_ms: EpochMs
    id: Annotated[str, Meta(max_length=256)] = ""


class Notes(Message, frozen=True, kw_only=True):
    """A staged rollout's memory. `order` is the draw: stage k has the first cap(k) of it."""

    FORMAT: ClassVar[str] = "drupelet.staged-rollout/1"
    BYTES_MAX: ClassVar[int] = 64 << 20

    format: str = "drupelet.staged-rollout/1"
    via: Literal["mender", "balena", "hawkbit"]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    artifact: Annotated[str, Meta(min_length=1, max_length=200)]
    group: Text = ""
    stages: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    order: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=DEVICES_MAX)]
    deployments: Annotated[tuple[Deployment, ...], Meta(max_length=16)] = ()
    state: State = State.RUNNING
    says: Text = ""


class Move(Enum):
    """What is to be done next."""

    WAIT = "wait"
    DEPLOY = "deploy"
    FINISH = "finish"
    TAKE_BACK = "take_back"


@dataclass(frozen=True, slots=True)
class Decision:
    """A move and the reason for it."""

    move: Move
    why: str


def draw(devices: tuple[str, ...], *, seed: str) -> tuple[str, ...]:
    """Return the devices in the order in which they get the release; the same seed, the same order."""
    order = sorted(devices)
    random.Random(seed).shuffle(order)  # noqa: S311 (a draw to be repeated, not a secret)
    return tuple(order)


def cohort(stages: tuple[Stage, ...], order: tuple[str, ...], stage: int) -> tuple[str, ...]:
    """Return the devices that a stage adds; none where its cap is not above the one before."""
    begin = stages[stage - 1].cap(len(order)) if stage else 0
    return order[begin : stages[stage].cap(len(order))]


def next_move(*, stages: int, deployed: int, answers: list[Answer], failures_max: int, soak_ms: int = 0) -> Decision:
    """Return what to do after `deployed` of `stages` stages, given every answer of every device so far. Pure.

    `soak_ms` is how long the stage in hand must still be looked at.
    """
    failed = answers.count(Answer.FAILED)
    if failed > failures_max:
        return Decision(Move.TAKE_BACK, f"{failed} of {len(answers)} devices failed to install it")
    pending = answers.count(Answer.PENDING)
    if pending:
        return Decision(Move.WAIT, f"{pending} of {len(answers)} devices have not answered")
    if deployed and soak_ms > 0:
        return Decision(Move.WAIT, f"all {len(answers)} devices answered; looked at for {soak_ms // 1000} s more")
    if deployed < stages:
        return Decision(Move.DEPLOY, f"all {len(answers)} devices answered" if answers else "nobody has it yet")
    return Decision(Move.FINISH, f"installed on {len(answers) - failed} devices, {failed} failed")


class Staged:
    """A rollout in stages through a `Service`. Implements `Driver`."""

    def __init__(self, service: Service, plan: Plan, *, notes: Path, disk: Disk, now_ms: Callable[[], int]) -> None:
        self._service, self._plan, self._path, self._disk, self._now_ms = service, plan, notes, disk, now_ms
        self._notes = self._begin()

    @property
    def notes(self) -> Notes:
        """What is written down."""
        return self._notes

    def step(self) -> Seen:
        """Look at every device that was given it, and do the next thing that is due."""
        if self._notes.state.ended:
            return self._seen([])
        self._finish_deploying()
        answers = self._answers()
        decision = next_move(
            stages=len(self._plan.stages),
            deployed=len(self._notes.deployments),
            answers=answers,
            failures_max=self._plan.failures_max,
            soak_ms=self._soak_ms(),
        )
        match decision.move:
            case Move.DEPLOY:
                self._deploy()
                answers = self._answers()
            case Move.TAKE_BACK:
                self._take_back()
                self._write(state=State.TAKEN_BACK, says=self._after_taking_back(decision.why))
            case Move.FINISH:
                exposed = tuple(device for one in self._notes.deployments for device in one.devices)
                if set(exposed) == set(self._notes.order):
                    self._service.finish(self._plan.artifact, exposed)
                self._write(state=State.COMPLETED, says=decision.why)
            case Move.WAIT:
                self._write(says=decision.why)
        return self._seen(answers)

    def abort(self, reason: str) -> Seen:
        """Stop what is under way and take back what can be taken back."""
        if self._notes.state is not State.TAKEN_BACK:
            self._finish_deploying()
            self._take_back()
            self._write(state=State.TAKEN_BACK, says=self._after_taking_back(reason or "a person aborted it"))
        return self._seen([])

    def _begin(self) -> Notes:
        plan = self._plan
        try:
            known = decode(Notes, self._disk.read(self._path, bytes_max=Notes.BYTES_MAX), where=str(self._path))
        except NotFound:
            return self._draw()
        asked = (self._service.name, plan.name, plan.artifact, plan.group, tuple(map(str, plan.stages)))
        if (known.via, known.name, known.artifact, known.group, known.stages) != asked:
            what = f"these are the notes of another rollout: {known.artifact} through {known.via} as {known.name!r}"
            raise Conflict(what, where=str(self._path), fix="give this one another --name")
        return known

    def _draw(self) -> Notes:
        plan = self._plan
        self._service.check(plan.artifact)
        found = self._service.devices(plan.group)
        if not found:
            raise NotFound(f"there are no devices in {plan.group or 'the fleet'!r}", fix="check the group's name")
        notes = msgspec.convert(
            {
                "format": Notes.FORMAT,
                "via": self._service.name,
                "name": plan.name,
                "artifact": plan.artifact,
                "group": plan.group,
                "stages": [str(stage) for stage in plan.stages],
                "order": draw(found, seed=plan.seed or plan.name),
            },
            Notes,
        )
        self._disk.replace(self._path, encode(notes))
        return notes

    def _write(self, **changes: object) -> None:
        changed = msgspec.structs.replace(self._notes, **changes)
        if changed != self._notes:
            self._disk.replace(self._path, encode(changed))
            self._notes = changed

    def _deploy(self) -> None:
        """Write down the stage, then begin it: an interruption in between leaves a stage without an id."""
        stage = len(self._notes.deployments)
        devices = cohort(self._plan.stages, self._notes.order, stage)
        said = f"stage {stage + 1} of {len(self._plan.stages)}: {len(devices)} more devices"
        added = Deployment(devices=devices, began_at_ms=self._now_ms())
        self._write(deployments=(*self._notes.deployments, added), says=said)
        self._finish_deploying()

    def _finish_deploying(self) -> None:
        done = []
        for number, one in enumerate(self._notes.deployments):
            made = one
            if not one.id and one.devices:
                name = f"{self._plan.name} {number + 1} of {len(self._plan.stages)}"
                known_as = self._service.deploy(self._plan.artifact, one.devices, name=name)
                made = msgspec.structs.replace(one, id=known_as)
            done.append(made)
        self._write(deployments=tuple(done))

    def _answers(self) -> list[Answer]:
        found: list[Answer] = []
        for one in self._notes.deployments:
            if one.devices:
                seen = self._service.answers(one.id, one.devices)
                # A device the service says nothing about has not answered: silence never passes, it fails in the end.
                late = self._now_ms() - one.began_at_ms > self._plan.answer_ms_max
                silent = Answer.FAILED if late else Answer.PENDING
                answers = [seen.get(device, Answer.PENDING) for device in one.devices]
                found += [silent if answer is Answer.PENDING else answer for answer in answers]
        return found

    def _soak_ms(self) -> int:
        """Return how long the stage in hand must still be looked at."""
        if not self._notes.deployments:
            return 0
        return self._plan.soak_ms - (self._now_ms() - self._notes.deployments[-1].began_at_ms)

    def _take_back(self) -> None:
        for one in reversed(self._notes.deployments):
            if one.id:
                self._service.stop(one.id)
                if self._service.takes_back:
                    self._service.take_back(one.id, one.devices)

    def _after_taking_back(self, why: str) -> str:
        if self._service.takes_back:
            return f"{why}; every device was ordered back"[:1000]
        kept = "those that had installed it keep it until another artifact is deployed"
        return f"{why}; stopped where it had not begun, {kept}"[:1000]

    def _seen(self, answers: list[Answer]) -> Seen:
        notes = self._notes
        return Seen(
            state=notes.state,
            stage=max(0, len(notes.deployments) - 1),
            stages=len(notes.stages),
            exposed=sum(len(one.devices) for one in notes.deployments),
            done=answers.count(Answer.DONE),
            failed=answers.count(Answer.FAILED),
            says=notes.says,
        )
