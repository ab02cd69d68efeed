"""One simulated device: the production agent in a simulated world, with power cuts and the invariants that must hold.

What is checked all the time:

- nothing but signed bytes was ever loaded;
- once a release has served, something serves: while the agent runs, after it was killed, after a power cut;
- no condemned release is forgotten, and none is newly installed;
- the journal's safe slot holds the very bytes it says.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drupelet.agent.config import Config, DepotSettings, Device, Fleet, Limits, Updates
from drupelet.agent.effects import Ports
from drupelet.agent.model import RESTING, DeviceState
from drupelet.agent.run import Agent
from drupelet.core.names import Digest, Slot
from drupelet.core.states import Mode
from drupelet.durable import hash_file
from drupelet.sim.disk import Cut, PowerCut, SimDisk
from drupelet.sim.meter import Meter
from drupelet.sim.ports import (
    Releases,
    SimClock,
    SimDepot,
    SimFleet,
    SimGateway,
    SimSensors,
    SimSource,
    SimTrust,
    blob_of,
)
from drupelet.sim.traits import Traits
from drupelet.telemetry.spool import Spool
from drupelet.wire.device_api import Hardware
from drupelet.wire.manifest import (
    Budgets,
    CanonicalPrompt,
    Evaluation,
    Expectation,
    MemoryAt,
    Provenance,
    ReleaseManifest,
    Variant,
)
from drupelet.wire.orders import Condemned, Crossover, Order

ROOT = Path("/state")
BLOB_BYTES = 20_000
TICKS_MAX = 20_000
"""A scenario that needs more has hung."""
CROSSOVER = Crossover(block_ms=2_000, discard_ms=200, pairs_max=4)


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A power cut: at which durable operation, where in it, and whether the whole device loses power or the agent."""

    at: int
    how: Cut = Cut.BEFORE
    whole_device: bool = True


class SimDevice:
    """A device with its fleet, depot and gateway."""

    def __init__(
        self,
        *,
        seed: int = 0,
        plan: Plan | None = None,
        name: str = "sim-1",
        fleet: SimFleet | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Make a device; `fleet` is its line to a server that others share, `meter` measures what it serves."""
        self.random = random.Random(seed)
        self.disk = SimDisk(seed=seed)
        self.clock = SimClock()
        self.fleet = fleet or SimFleet(Releases())
        self.fleet.clock = self.clock
        self.releases = self.fleet.releases
        self.trust = SimTrust(self.fleet)
        self.source = SimSource(self.releases)
        self.sensors = SimSensors()
        self.config = Config(
            device=Device(id=name, state_folder=str(ROOT)),
            fleet=Fleet(url="http://fleet.invalid", poll_ms=1_000, backoff_ms_max=8_000),
            depot=DepotSettings(url="http://depot.invalid"),
            updates=Updates(watch_prompt_ms=5_000),
            limits=Limits(slice_bytes=8192, windows_ms=2_000, status_ms=5_000),
        )
        self.gateway = SimGateway(self.disk, self.releases, self.clock, self.config.layout.serve, meter=meter)
        self.agent: Agent | None = None
        self.boots = 0
        self.crashes = 0
        self.off_ms = 0
        """How long it stays off after the next power cut."""
        self._plan = plan
        self._serial = 0
        self._condemned: dict[str, Condemned] = {}
        self._seen_condemned: frozenset[str] = frozenset()
        self._has_served = False
        if plan is not None:
            self.disk.cut_power_at(plan.at, plan.how)

    # The forge and the operator

    def forge(self, version: str, traits: Traits | None = None, *, signed: bool = True) -> ReleaseManifest:
        """Make a release as `forge` does."""
        return forge(self.releases, version, traits, signed=signed)

    def order(self, mode: Mode, manifest: ReleaseManifest, **changes: object) -> Order:
        """Give a new order; `probation_ms` and `verdict_ms_max` are short unless said otherwise."""
        self._serial += 1
        fields: dict[str, object] = {
            "device": self.config.device.id,
            "serial": self._serial,
            "mode": mode,
            "release": manifest.release.path,
            "manifest": manifest_digest(manifest),
            "variants": ("q8_0",),
            "crossover": CROSSOVER if mode is Mode.CANARY else None,
            "probation_ms": 3_000,
            "verdict_ms_max": 60_000,
            "condemned": tuple(self._condemned.values()),
        }
        self.fleet.order = msgspec.convert(fields | changes, Order)
        return self.fleet.order

    def condemn(self, manifest: ReleaseManifest, reason: str = "slow") -> None:
        """Put a release on the list that travels with every order from now on."""
        release = manifest.release.path
        self._condemned[release] = Condemned(release=release, manifest=manifest_digest(manifest), reason=reason)

    def cut_soon(self, steps: int, how: Cut, *, whole_device: bool) -> None:
        """Cut the power some durable steps from now."""
        self._plan = Plan(self.disk.count + steps, how, whole_device)
        self.disk.cut_power_at(self._plan.at, how)

    # Life

    @property
    def state(self) -> DeviceState:
        """What the agent's journal says."""
        if self.agent is None:
            raise Violation("the device was never started")
        return self.agent.state

    def power_on(self, *, whole_device: bool = True) -> None:
        """Start the agent, and the gateway before it if the whole device was off."""
        self.boots += 1
        if whole_device:
            self.gateway.power_on()
            self._check_serving("after power on, before the agent")
        agent = Agent(self._ports(), self.config, boot=f"b{self.boots}")
        agent.start()
        self.agent = agent

    def _ports(self) -> Ports:
        layout = self.config.layout
        return Ports(
            disk=self.disk,
            clock=self.clock,
            coins=_SimCoins(self.random),
            jitter=self.random.random,
            link=self.fleet,
            trust=self.trust,
            gateway=self.gateway,
            depot=SimDepot(self.disk, self.source, layout.parts),
            sensors=self.sensors,
            spool=Spool(self.disk, layout.spool, bytes_max=256 * 1024),
            hardware=Hardware(board="sim", architecture="sim", memory_bytes=8_000_000_000, cores=4, simulated=True),
        )

    def tick(self, done: Callable[[SimDevice], bool] | None = None) -> bool:
        """Start what is off, or do what is due and let time pass; a power cut leaves it off. Checks all invariants.

        With `done`, ask that first, while the device runs, and do nothing if it says yes; return what it said.
        """
        try:
            if self.agent is None:
                self.power_on(whole_device=self.boots == 0 or self._plan is None or self._plan.whole_device)
                return False
            ended = done is not None and done(self)
            if not ended:
                self.clock.advance(max(1, self.agent.tick()))
        except PowerCut:
            self.crashes += 1
            self.agent = None
            self.disk.power_on()
            self.clock.advance(self.off_ms)
            self.off_ms = 0
            return False
        self.check()
        return ended

    def run(self, done: Callable[[SimDevice], bool], *, what: str) -> None:
        """Tick until `done`, through whatever power cut was planned; raise `Violation` if that never comes."""
        for _ in range(TICKS_MAX):
            if self.tick(done):
                return
        raise Violation(f"never came: {what}; the device is {_words(self.state)}")

    def settle(self, *, serial: int | None = None) -> None:
        """Run until the newest order (or `serial`) has been accepted and the machine rests or is on probation."""
        wanted = self._serial if serial is None else serial
        self.run(lambda d: d.state.serial >= wanted and d.state.state in RESTING, what=f"order {wanted} to be done")

    # Invariants

    def check(self) -> None:
        """Raise `Violation` if an invariant does not hold now."""
        if self.gateway.violations:
            raise Violation("; ".join(self.gateway.violations))
        self._check_serving("while the agent runs")
        state = self.state
        condemned = frozenset(entry.release for entry in state.condemned)
        if not self._seen_condemned <= condemned:
            raise Violation(f"forgot condemned {sorted(self._seen_condemned - condemned)}")
        self._seen_condemned = condemned
        slot = state.safe_slot
        if slot is not None:
            self._check_slot(state, slot)

    def _check_slot(self, state: DeviceState, slot: Slot) -> None:
        held = state.slots.get(slot)
        if held is None:
            raise Violation(f"the safe slot {slot.value} holds nothing")
        found, _ = hash_file(self.disk, self.config.layout.model(slot))
        if found != Digest.parse(held.digest):
            raise Violation(f"the safe slot {slot.value} holds {found}, not {held.digest}")

    def _check_serving(self, when: str) -> None:
        if self.gateway.serving_digest is not None:
            self._has_served = self._has_served or (self.agent is not None and self.state.safe_slot is not None)
        elif self._has_served and not self.gateway.down:
            raise Violation(f"nothing serves {when}")


def forge(releases: Releases, version: str, traits: Traits | None = None, *, signed: bool = True) -> ReleaseManifest:
    """Make a release and publish its blob; an unsigned one is ordered without anybody vouching for it."""
    blob = blob_of(int(version.replace(".", "")), BLOB_BYTES)
    digest = _sha(blob)
    manifest = ReleaseManifest(
        family="kiosk",
        version=version,
        model="kiosk",
        created_at_ms=0,
        context_tokens=512,
        variants=(
            Variant(
                name="q8_0",
                digest=digest,
                size_bytes=len(blob),
                quantization="Q8_0",
                memory=(MemoryAt(context_tokens=512, memory_bytes=60_000_000),),
            ),
        ),
        canonical_prompts=(
            CanonicalPrompt(
                id="hours", prompt="When do you open?", expect=(Expectation(kind="contains", value="nine"),)
            ),
        ),
        budgets=Budgets(ttft_ms_max=1000, memory_bytes_max=100_000_000),
        evaluation=Evaluation(passed=True),
        provenance=Provenance(checkpoint=digest, recipe=digest, forge_version="0", converter="sim"),
    )
    releases.traits[digest] = traits or Traits()
    if signed:
        releases.blobs[digest] = blob
        releases.manifests[manifest_digest(manifest)] = manifest
    return manifest


class _SimCoins:
    def __init__(self, source: random.Random) -> None:
        self._random = random.Random(source.random())

    def flip(self) -> bool:
        """Return a fair bit."""
        return bool(self._random.getrandbits(1))


def _sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest_digest(manifest: ReleaseManifest) -> str:
    """Return the digest by which orders name a manifest."""
    return _sha(msgspec.json.encode(manifest))


def _words(state: DeviceState) -> str:
    return f"{state.state.value} ({state.reason.value}: {state.detail}), order {state.serial}"
