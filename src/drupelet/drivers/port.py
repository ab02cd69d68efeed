"""What every way of rolling a release out must do, whoever owns the devices.

The theory. Mender, balena and hawkBit each know *their* devices, and each can give an artifact to some of them and say
how it went there. None judges a model. So a rollout through them is a sequence of stages that this side drives: give
the release to the next few devices, wait until every one of them has answered, look at the failures, go on or take it
back. `Service` is the little that differs, one file each; `staged.py` is the rest, once. A rollout through our own
fleet server (`drupelet.py`) has the gate instead: it implements `Driver` directly.

A verdict here rests on what devices report of their *installation*. It is no evidence about latency or answers, and
says so: `Seen.says` never claims more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from drupelet.core.errors import BadInput

STAGES_MAX = 16
DEVICES_MAX = 100_000
_STAGE = re.compile(r"([1-9][0-9]{0,5})(%?)\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:+_ /-]{0,199}\Z")


@dataclass(frozen=True, slots=True)
class Stage:
    """How many devices may have the release at the end of a stage: a count, or a share of all in percent."""

    size: int
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Parse `5` or `25%`."""
        match = _STAGE.match(text.strip())
        if match is None or (match[2] and int(match[1]) > 100):
            raise BadInput(f"{text[:40]!r} is no stage", fix="write a number of devices, or a share such as 25%")
        return cls(int(match[1]), match[2] == "%")

    def cap(self, devices: int) -> int:
        """Return how many of `devices` that is: a share is rounded up, so that no stage is empty."""
        return min(devices, -(-devices * self.size // 100) if self.percent else self.size)

    def __str__(self) -> str:
        return f"{self.size}{'%' if self.percent else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rollout as it is asked for."""

    name: str
    """Of the rollout: a second run with the same name goes on with it."""
    artifact: str
    """The release as the service calls it: an artifact's name, a release's version, `kiosk/1.2`."""
    group: str
    """The devices as the service calls them: a group, a fleet, a target filter, a selector; empty means all."""
    stages: tuple[Stage, ...]
    failures_max: int = 0
    """Failed devices in all that are still accepted."""
    seed: str = ""
    """Of the draw of devices."""
    soak_ms: int = 0
    """Least time from a stage's beginning to the next one's, however soon its devices answer."""
    answer_ms_max: int = 86_400_000
    """A device that has not answered for this long after its stage began counts as failed."""

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("artifact", self.artifact)):
            if not _NAME.match(text):
                raise BadInput(
                    f"{text[:80]!r} is no {what}", fix="use letters, digits, '.', '_', '-', ':', '+', '/' and spaces"
                )
        if not 1 <= len(self.stages) <= STAGES_MAX:
            raise BadInput(f"{len(self.stages)} stages", fix=f"give 1 to {STAGES_MAX}, as in 1,25%,100%")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if before.percent == after.percent and after.size <= before.size:
                raise BadInput(f"stage {after} does not come after stage {before}", fix="stages grow: 1,25%,100%")


class Answer(Enum):
    """What one device made of a deployment."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class State(Enum):
    """Where a rollout is."""

    RUNNING = "running"
    COMPLETED = "completed"
    TAKEN_BACK = "taken_back"
    PAUSED = "paused"
    """The service, or a person there, stopped it."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (State.COMPLETED, State.TAKEN_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A rollout as it stands, in words for a person, with counts of devices."""

    state: State
    stage: int
    """The stage in hand, from 0."""
    stages: int
    exposed: int
    done: int
    failed: int
    says: str


class Driver(Protocol):
    """One rollout. `step` may be called again after anything, in another process too."""

    def step(self) -> Seen:
        """Look, do the next thing that is due, and say how it stands. Raises core's `Unavailable` to be tried again."""
        ...

    def abort(self, reason: str) -> Seen:
        """Take the release back from every device that this rollout gave it to, as far as the service can."""
        ...


class Service(Protocol):
    """An update system that owns devices. Errors are core's; `Unavailable` means that asking again may help."""

    name: str
    takes_back: bool
    """Whether `take_back` can return devices to what they had; else only those still under way are stopped."""

    def check(self, artifact: str) -> None:
        """Raise `NotFound` if the service does not know the artifact."""
        ...

    def devices(self, group: str) -> tuple[str, ...]:
        """Return the ids of the devices of a group, sorted. Raises `NotFound` if there is no such group."""
        ...

    def deploy(self, artifact: str, devices: tuple[str, ...], *, name: str) -> str:
        """Give the artifact to these devices and return the deployment's id. The same name again: the same one."""
        ...

    def answers(self, deployment: str, devices: tuple[str, ...]) -> dict[str, Answer]:
        """Return how it stands on each device."""
        ...

    def stop(self, deployment: str) -> None:
        """Stop a deployment where it has not begun; doing it twice does nothing."""
        ...

    def take_back(self, deployment: str, devices: tuple[str, ...]) -> None:
        """Return devices to what they had before the deployment. Never called where `takes_back` is false."""
        ...

    def finish(self, artifact: str, devices: tuple[str, ...]) -> None:
        """Make the artifact what new devices of the group get too; called once every device has it."""
        ...
