"""The grammar of everything the agent does: small steps that may be begun again, and one way to fail.

A `Work` belongs to one `Do`. Its `step` does a bounded slice and returns the event that ends it, or None to be called
again. What it remembers between steps may be lost at any time: a restart makes a new one from the state alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drupelet.agent.config import Config
from drupelet.agent.effects import Asking, Ports
from drupelet.agent.errors import GatewaySilent
from drupelet.agent.events import AnyEvent
from drupelet.agent.model import DeviceState
from drupelet.agent.slots import Slots
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.wire.control import AskStatus, CannotDo, Done, GatewayStatus, Load, Loaded, Route, Unload

WAIT_MS = 200
"""How long one step waits for a slow answer; heartbeats are late by no more than that."""
FAULTS_MAX = 2
"""Times that wrong content is fetched before the release is given up: once may be the network, twice is the source."""
TRIALS_MAX = 2
"""Trials begun before an interrupted one counts as failed."""
LOADS_MAX = 3
"""Attempts to load a release that is gone back to."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every work needs: the ports, the slots' files and the settings."""

    ports: Ports
    slots: Slots
    config: Config


class Work(Protocol):
    """One thing to do, in slices."""

    wait_ms: int
    """How long the next step may wait."""

    def step(self, state: DeviceState) -> AnyEvent | None:
        """Do a slice; return the event that ends this work, or None. Raises core's errors to be tried again."""
        ...

    def close(self) -> None:
        """Let go of what is held; nothing durable is lost."""
        ...


class Hashing:
    """The digest of a file, in slices."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self._path = disk, path
        self._hash = hashlib.sha256()
        self.done_bytes = 0

    def step(self, bytes_max: int) -> Digest | None:
        """Hash up to `bytes_max` more bytes; return the digest once the file ended."""
        left = bytes_max
        while left > 0:
            data = self._disk.read_at(self._path, self.done_bytes, min(left, 1 << 20))
            if not data:
                return Digest.of_hex(self._hash.hexdigest())
            self._hash.update(data)
            self.done_bytes += len(data)
            left -= len(data)
        return None


class BringUp:
    """Makes the gateway hold a load in its slot: asks what is there, unloads what is in the way, loads."""

    def __init__(self, means: Means, load: Load) -> None:
        self._gateway = means.ports.gateway
        self.load = load
        self._asking: Asking | None = None
        self._loading = False
        self.begun = False
        """A child was asked to load since this was made: from here on, silence means an interrupted load."""

    def step(self) -> Loaded | CannotDo | None:
        """Return the gateway's answer to the load, or None while it takes its time. Raises `GatewaySilent`."""
        if self._asking is None:
            self._asking = self._next()
        answer = self._asking.answer(WAIT_MS)
        if answer is None:
            return None
        self.close()
        if not self._loading:
            if isinstance(answer, CannotDo):
                return answer
            return None
        if isinstance(answer, CannotDo) and answer.reason is Reason.INTERRUPTED:
            # What was there is being unloaded: ask again.
            return None
        if isinstance(answer, Loaded | CannotDo):
            return answer
        raise GatewaySilent(f"load was answered with {type(answer).__name__}")

    def _next(self) -> Asking:
        child = next((c for c in status_of(self._gateway.ask(AskStatus())).children if c.slot is self.load.slot), None)
        self._loading = child is None or (child.release, child.digest) == (self.load.release, self.load.digest)
        self.begun = True
        return self._gateway.begin(self.load if self._loading else Unload(slot=self.load.slot))

    def close(self) -> None:
        """Give up waiting."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def status_of(answer: object) -> GatewayStatus:
    """Return a status answer, or raise `GatewaySilent` for any other."""
    if isinstance(answer, GatewayStatus):
        return answer
    raise GatewaySilent(f"status was answered with {type(answer).__name__}")


def route(means: Means, question: Route) -> CannotDo | None:
    """Route; return why not, or None when done."""
    answer = means.ports.gateway.ask(question)
    if isinstance(answer, Done):
        return None
    if isinstance(answer, CannotDo):
        return answer
    raise GatewaySilent(f"route was answered with {type(answer).__name__}")
