"""The ports: everything the agent can do to the world. Adapters are in files of their own; tests use named fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drupelet.core.names import Digest
from drupelet.depot.download import Progress
from drupelet.durable import Disk
from drupelet.wire.control import Answer, Question
from drupelet.wire.device_api import Hardware, PollReply, PollRequest
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order
from drupelet.wire.telemetry import Window


class FleetLink(Protocol):
    """The way to the fleet server; enrolment and tokens are its own business."""

    def poll(self, request: PollRequest) -> PollReply:
        """Send a heartbeat. Raises `FleetSilent`, or `NotApproved` while the fleet has not let this device in."""
        ...


class Trust(Protocol):
    """What may be believed. Raises core's `Untrusted` with a `reason`, or `Unavailable`."""

    @property
    def order(self) -> Order | None:
        """The newest order that was accepted as genuine, from the disk alone."""
        ...

    def refresh_director(self) -> Order | None:
        """Fetch and verify this device's newest order."""
        ...

    def vouch(self, order: Order) -> ReleaseManifest:
        """Return the manifest of the newest order's release, if both repositories vouch for it."""
        ...

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        """Return a manifest that was vouched for before, without a network."""
        ...


class Asking(Protocol):
    """A question whose answer takes its time."""

    def answer(self, wait_ms: int) -> Answer | None:
        """Return the answer, or None if it is not there within `wait_ms`. Raises `GatewaySilent`."""
        ...

    def close(self) -> None:
        """Give up on it."""
        ...


class Gateway(Protocol):
    """The control socket of the gateway, which owns every inference child."""

    def ask(self, question: Question) -> Answer:
        """Return the answer to a question that is answered at once. Raises `GatewaySilent`."""
        ...

    def begin(self, question: Question) -> Asking:
        """Ask what takes long (load, trial, drain) without waiting. Raises `GatewaySilent`."""
        ...


class Fetching(Protocol):
    """A download that goes on where it stopped."""

    def step(self, bytes_max: int) -> Progress:
        """Fetch, hash and write up to `bytes_max` more bytes.

        Raises core's errors with a `reason`: `Untrusted` for wrong content, `Unavailable` for the network.
        """
        ...

    def close(self) -> None:
        """Let go of connection and file; what was synced stays."""
        ...


class Depot(Protocol):
    """Where blobs come from."""

    def fetching(self, digest: Digest, size_bytes: int) -> Fetching:
        """Begin or go on fetching a blob into its part file."""
        ...


@dataclass(frozen=True, slots=True)
class Readings:
    """What the sensors say now. None and empty mean unknown, which is not bad."""

    temperature_celsius: float | None = None
    throttled: dict[str, bool] = field(default_factory=dict)
    memory_available_bytes: int | None = None

    @property
    def undervoltage(self) -> bool:
        """Whether the supply is too weak right now."""
        return self.throttled.get("undervoltage", False)


class Sensors(Protocol):
    """Temperature, throttling, memory."""

    def read(self) -> Readings:
        """Return what is known now; never raises."""
        ...


class Clock(Protocol):
    """Two clocks: one that may be wrong and one that only measures."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some moment; never goes back while the process lives."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as far as the device knows it."""
        ...


class Coins(Protocol):
    """Fair coins that nothing else uses."""

    def flip(self) -> bool:
        """Return a fair bit."""
        ...


class WindowSpool(Protocol):
    """Measurements on their way to the fleet."""

    @property
    def pending(self) -> int:
        """Windows that are not acknowledged."""
        ...

    @property
    def bytes_used(self) -> int:
        """Bytes on disk."""
        ...

    @property
    def dropped(self) -> int:
        """Windows given up because the spool was full, ever."""
        ...

    def taken(self, boot: str) -> int:
        """The gateway's sequence up to which its windows are here."""
        ...

    def append(self, windows: Sequence[Window], *, boot: str) -> int:
        """Durably keep windows."""
        ...

    def peek(self, limit: int) -> tuple[Window, ...]:
        """Return the oldest unacknowledged windows."""
        ...

    def ack(self, seq: int) -> None:
        """Forget windows up to `seq`."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of them. `link` is None for an agent that works without a fleet."""

    disk: Disk
    clock: Clock
    coins: Coins
    jitter: Callable[[], float]
    """A number from 0 to 1, for back-off only: coins come from elsewhere."""
    link: FleetLink | None
    trust: Trust
    gateway: Gateway
    depot: Depot
    sensors: Sensors
    spool: WindowSpool
    hardware: Hardware
