"""Simulated ports of a device: a clock that only moves when told, a fleet, a depot, trust and a gateway.

They are as strict as the real ones: the gateway hashes what it loads, the depot's bytes go through the real download,
trust vouches for what the simulated forge signed and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drupelet.agent.effects import Readings
from drupelet.agent.errors import FleetSilent, GatewaySilent
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.depot.download import Download
from drupelet.depot.errors import SourceUnreachable
from drupelet.durable import hash_file
from drupelet.sim.disk import SimDisk
from drupelet.sim.meter import Meter
from drupelet.sim.traits import Traits
from drupelet.trust.errors import NotTrusted
from drupelet.wire.codec import decode_as
from drupelet.wire.control import (
    Answer,
    AskStatus,
    CannotDo,
    ChildStatus,
    Done,
    Drain,
    GatewayStatus,
    Load,
    Loaded,
    PromptResult,
    Question,
    Route,
    Serve,
    TakeWindows,
    Trial,
    TrialReport,
    Unload,
    Windows,
)
from drupelet.wire.device_api import DeviceEvent, PollReply, PollRequest
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order


class SimClock:
    """A monotonic and a wall clock; the wall clock may be wrong by `skew_ms`."""

    def __init__(self, *, skew_ms: int = 0) -> None:
        self.now_ms = 1_000
        self.skew_ms = skew_ms

    def monotonic_ms(self) -> int:
        """Milliseconds of simulated time."""
        return self.now_ms

    def wall_ms(self) -> int:
        """Simulated Unix time."""
        return max(0, 1_790_000_000_000 + self.now_ms + self.skew_ms)

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.now_ms += max(0, ms)


@dataclass(slots=True)
class Releases:
    """What the simulated forge signed: manifests by digest, blobs by digest, and how each blob behaves."""

    manifests: dict[str, ReleaseManifest] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    traits: dict[str, Traits] = field(default_factory=dict)


@dataclass(slots=True)
class SimFleet:
    """The server's side of a device: the newest order, what was told, and whether anybody is there."""

    releases: Releases
    order: Order | None = None
    away: bool = False
    refusal: NotTrusted | None = None
    """Raised instead of an order: the metadata on offer is not genuine."""
    poll_after_ms: int = 1_000
    events: dict[int, DeviceEvent] = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)
    polls: list[PollRequest] = field(default_factory=list)
    clock: SimClock | None = None
    slow_ms: int = 0
    """How long the network takes over each heartbeat."""
    attempts: int = 0
    """Heartbeats tried, answered or not."""

    def poll(self, request: PollRequest) -> PollReply:
        """Answer a heartbeat."""
        self.attempts += 1
        if self.clock is not None:
            self.clock.advance(self.slow_ms)
        if self.away:
            raise FleetSilent("the fleet is away")
        self.polls.append(request)
        self.events |= {event.seq: event for event in request.events}
        self.windows |= {window.seq for window in request.windows}
        return PollReply(
            poll_after_ms=self.poll_after_ms,
            events_taken=max(self.events, default=0),
            windows_taken=max(self.windows, default=0),
        )


class SimTrust:
    """Believes what the simulated forge signed. What it accepted survives a restart, as the real one's does."""

    def __init__(self, fleet: SimFleet) -> None:
        self._fleet = fleet
        self.order: Order | None = None

    def refresh_director(self) -> Order | None:
        """Return the newest order."""
        if self._fleet.away:
            raise FleetSilent("the fleet is away")
        if self._fleet.refusal is not None:
            raise self._fleet.refusal
        self.order = self._fleet.order
        return self.order

    def vouch(self, order: Order) -> ReleaseManifest:
        """Return the manifest if the forge signed it."""
        if self._fleet.away:
            raise FleetSilent("the depot is away")
        found = self.remembered(Digest.parse(order.manifest))
        if found is None:
            raise NotTrusted(f"the image repository does not know {order.release}", reason=Reason.UNSIGNED)
        return found

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        """Return a manifest by its digest."""
        return self._fleet.releases.manifests.get(digest.text)


class SimSource:
    """A depot: sends blobs in small chunks, and can lie about them."""

    CHUNK = 1000

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self.sent: dict[str, int] = {}
        self.lies: dict[str, bytes] = {}
        """Other bytes than were signed, by digest."""
        self.away = False

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:  # noqa: ARG002  (it may lie)
        """Yield the blob's bytes."""
        data = self.lies.get(digest.text, self._releases.blobs.get(digest.text, b""))
        for start in range(offset, len(data), self.CHUNK):
            if self.away:
                raise SourceUnreachable("the depot is away")
            chunk = data[start : start + self.CHUNK]
            self.sent[digest.text] = self.sent.get(digest.text, 0) + len(chunk)
            yield chunk


class SimDepot:
    """The real download, from a simulated source onto a simulated disk."""

    def __init__(self, disk: SimDisk, source: SimSource, parts: Path) -> None:
        self._disk, self._source, self._parts = disk, source, parts

    def fetching(self, digest: Digest, size_bytes: int) -> Download:
        """Begin a download."""
        part = self._parts / f"{digest.hex}.part"
        return Download(self._source, self._disk, part=part, digest=digest, size=size_bytes, sync_bytes=4096)


class SimSensors:
    """Sensors that say what they are told to."""

    def __init__(self) -> None:
        self.readings = Readings(temperature_celsius=50.0, memory_available_bytes=4_000_000_000)

    def read(self) -> Readings:
        """Return it."""
        return self.readings


class SimAsking:
    """An answer that takes simulated time."""

    def __init__(self, clock: SimClock, answer: Answer, after_ms: int) -> None:
        self._clock, self._answer, self._at_ms = clock, answer, clock.now_ms + after_ms

    def answer(self, wait_ms: int) -> Answer | None:
        """Wait, in simulated time."""
        if self._clock.now_ms < self._at_ms:
            self._clock.advance(min(wait_ms, self._at_ms - self._clock.now_ms))
        return self._answer if self._clock.now_ms >= self._at_ms else None

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class _Child:
    load: Load
    exits: dict[ExitReason, int] = field(default_factory=dict)


class SimGateway:
    """The gateway: reads `serve.json` when it starts, hashes what it loads, routes, and remembers all it ever ran."""

    LOAD_MS = 500

    def __init__(
        self, disk: SimDisk, releases: Releases, clock: SimClock, serve: Path, *, meter: Meter | None = None
    ) -> None:
        self._disk, self._releases, self._clock, self._serve = disk, releases, clock, serve
        self._meter = meter
        self.children: dict[Slot, _Child] = {}
        self.serving: Slot | None = None
        self.routes: list[Route] = []
        self.trials: list[tuple[int, Route]] = []
        """For each trial: how long after which route it was asked."""
        self._routed_ms = 0
        self.violations: list[str] = []
        self.down = False
        self.boots = 0

    def power_on(self) -> None:
        """Start: serve from the first load of `serve.json` that can be loaded."""
        self.children, self.serving = {}, None
        self.boots += 1
        if self._meter is not None:
            self._meter.restarted()
        try:
            loads = decode_as(Serve, self._disk.read(self._serve, bytes_max=1 << 20)).loads
        except (NotFound, BadInput):
            loads = ()
        for load in loads:
            if isinstance(self._load(load), Loaded):
                self.serving = load.slot
                break

    @property
    def serving_digest(self) -> str | None:
        """The digest of what answers users now."""
        child = self.children.get(self.serving) if self.serving is not None else None
        return child.load.digest if child is not None else None

    def _load(self, load: Load) -> Answer:
        held = self.children.get(load.slot)
        if held is not None:
            if held.load.digest == load.digest:
                return Loaded(load_ms=self.LOAD_MS, memory_bytes=self._traits(load).memory_bytes)
            return CannotDo(reason=Reason.LOAD_FAILED, detail=f"slot {load.slot.value} holds another release")
        try:
            digest, _ = hash_file(self._disk, Path(load.path))
        except NotFound:
            return CannotDo(reason=Reason.LOAD_FAILED, detail="there is no such file")
        if digest.text != load.digest:
            return CannotDo(reason=Reason.DIGEST_MISMATCH, detail="the file is not what was verified")
        if digest.text not in self._releases.blobs:
            self.violations.append(f"loaded unsigned bytes {digest}")
        if not self._traits(load).loads:
            return CannotDo(reason=Reason.LOAD_FAILED, detail="it does not load")
        self.children[load.slot] = _Child(load)
        return Loaded(load_ms=self.LOAD_MS, memory_bytes=self._traits(load).memory_bytes)

    def _traits(self, load: Load) -> Traits:
        return self._releases.traits.get(load.digest, Traits())

    def ask(self, question: Question) -> Answer:
        """Answer at once."""
        if self.down:
            raise GatewaySilent("the gateway is down")
        match question:
            case AskStatus():
                return self._status()
            case Route():
                child = self.children.get(question.slot)
                if child is None:
                    return CannotDo(reason=Reason.NO_OTHER_SLOT, detail="the slot is empty")
                if self._meter is not None:
                    self._meter.routed(question, child.load, self._traits(child.load), self._clock.now_ms)
                self.serving = question.slot
                self.routes.append(question)
                self._routed_ms = self._clock.now_ms
                return Done()
            case TakeWindows():
                taken = () if self._meter is None else self._meter.take(question.after, question.limit)
                return Windows(boot=f"g{self.boots}", windows=taken)
            case Unload():
                if question.slot is self.serving:
                    return CannotDo(reason=Reason.NO_OTHER_SLOT, detail="it is serving")
                self.children.pop(question.slot, None)
                return Done()
            case Drain():
                return Done()
            case Load():
                return self._load(question)
            case Trial():
                return self._trial(question)

    def begin(self, question: Question) -> SimAsking:
        """Answer after a while."""
        return SimAsking(self._clock, self.ask(question), self.LOAD_MS)

    def _trial(self, question: Trial) -> Answer:
        child = self.children.get(question.slot)
        if child is None:
            return CannotDo(reason=Reason.CHILD_DIED, detail="the slot is empty")
        if self.routes:
            self.trials.append((self._clock.now_ms - self._routed_ms, self.routes[-1]))
        traits = self._traits(child.load)
        results = tuple(
            PromptResult(
                id=prompt.id,
                text=traits.answer,
                tokens=5,
                ttft_ms=traits.ttft_ms,
                answer_ms=traits.ttft_ms * 3,
                tokens_per_second=100.0,
            )
            for prompt in question.prompts
        )
        return TrialReport(results=results, memory_bytes=traits.memory_bytes)

    def _status(self) -> GatewayStatus:
        for child in self.children.values():
            deaths = self._traits(child.load).deaths_a_look
            if deaths:
                child.exits[ExitReason.SIGNALLED] = child.exits.get(ExitReason.SIGNALLED, 0) + deaths
        return GatewayStatus(
            ready=self.serving is not None,
            serving=self.serving,
            children=tuple(
                ChildStatus(
                    slot=slot,
                    state="ready",
                    release=child.load.release,
                    digest=child.load.digest,
                    running=0,
                    memory_bytes=self._traits(child.load).memory_bytes,
                    exits=dict(child.exits),
                )
                for slot, child in sorted(self.children.items(), key=lambda item: item[0].value)
            ),
            running=0,
            waiting=0,
            requests=0,
            errors=0,
            boot=f"g{self.boots}",
        )


def blob_of(seed: int, size: int) -> bytes:
    """Return `size` bytes that look random and are always the same."""
    block = hashlib.sha256(f"blob {seed}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]
