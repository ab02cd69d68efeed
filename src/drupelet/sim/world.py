"""Some simulated devices, one simulated server, and a network between them that loses, delays and repeats.

Time is the devices' own: whoever is furthest behind goes next, and the server looks whenever its time has come. The
invariants that must hold at every moment are checked after every decision (`_decided`) and every tick (`_ticked`):

- no more devices are exposed than the stage's cap, and nobody runs the release who was not exposed;
- nobody is ordered to take a condemned release, and no device that knows of it takes it again;
- the gate condemns with evidence at its threshold or not at all;
- a release that is taken back is gone from every device that said so, and the old one serves there;
- everything `SimDevice.check` says: signed bytes only, one slot always serves, nothing condemned is forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from drupelet.agent.errors import FleetSilent
from drupelet.core.names import Slot
from drupelet.core.states import Mode, RolloutState
from drupelet.fleet import plan
from drupelet.fleet.errors import WrongState
from drupelet.fleet.machine import TAKING_BACK, Event
from drupelet.fleet.policy import RolloutPolicy
from drupelet.gate import Kind
from drupelet.sim.device import SimDevice, Violation, forge, manifest_digest
from drupelet.sim.disk import Cut
from drupelet.sim.meter import Meter
from drupelet.sim.ports import Releases, SimFleet
from drupelet.sim.server import DeviceRow, RolloutRow, SimServer
from drupelet.sim.traits import Traits
from drupelet.wire.device_api import PollReply, PollRequest

LOOK_MS = 4_000
TICKS_MAX = 60_000
"""A story that needs more has hung."""
TAKEN_AGAIN = (Mode.INSTALL, Mode.CANARY, Mode.COMMIT)


@dataclass(slots=True)
class Line(SimFleet):
    """One device's way to the server. `loss` is the chance that something befalls a heartbeat."""

    server: SimServer | None = None
    chance: random.Random = field(default_factory=random.Random)
    loss: float = 0.0
    late: list[PollRequest] = field(default_factory=list)
    """Requests on the way that the device has given up: they arrive before a later one."""

    def poll(self, request: PollRequest) -> PollReply:
        """Carry a heartbeat: lost on the way, answered in vain, late, twice, or well."""
        if self.server is None or self.away:
            raise FleetSilent("the fleet is away")
        fate = self.chance.random() / self.loss if self.loss else 1.0
        late, self.late = self.late, []
        for old in late:
            self.server.poll(old)
        if fate < 0.25:
            raise FleetSilent("the request was lost")
        if fate < 0.5:
            self.late.append(request)
            raise FleetSilent("the request is late")
        reply = self.server.poll(request)
        if fate < 0.75:
            raise FleetSilent("the answer was lost")
        if fate < 1.0:
            reply = self.server.poll(request)
        self.order = self.server.devices[request.device].signed
        return reply


class World:
    """A fleet of `count` devices at two sites, all without a release."""

    def __init__(self, *, seed: int, count: int) -> None:
        self.chance = random.Random(seed)
        self.server = SimServer()
        self.server.watch = self._decided
        self.releases = Releases()
        self.devices: dict[str, SimDevice] = {}
        self.lines: dict[str, Line] = {}
        self.server_dies = 0.0
        """The chance that a look ends before its decisions do."""
        self.decisions: list[str] = []
        self.deaths = 0
        self._next_look_ms = 0
        self._held: dict[tuple[str, str], frozenset[Slot]] = {}
        for number in range(1, count + 1):
            name = f"d-{number}"
            line = Line(self.releases, server=self.server, chance=random.Random(self.chance.random()))
            self.lines[name] = line
            made = SimDevice(seed=seed * 100 + number, name=name, fleet=line, meter=Meter(seed * 100 + number))
            made.clock.advance(self.chance.randint(0, 3_000))
            self.devices[name] = made
            self.server.devices[name] = DeviceRow(name, site="north" if number % 2 else "south")

    @property
    def now_ms(self) -> int:
        """Simulated time: that of the device furthest behind."""
        return min(device.clock.now_ms for device in self.devices.values())

    @property
    def cuts(self) -> int:
        """Power cuts so far."""
        return sum(device.crashes for device in self.devices.values())

    def start(
        self, version: str, traits: Traits, *, wanted: tuple[str, ...], policy: RolloutPolicy, seed: str = "sim"
    ) -> RolloutRow:
        """Forge a release and start its rollout."""
        manifest = forge(self.releases, version, traits)
        return self.server.start(manifest, manifest_digest(manifest), wanted=wanted, policy=policy, seed=seed)

    def command(self, rollout: RolloutRow, event: Event) -> None:
        """Let an operator say something; what is impossible now is refused by the real machine at the next look."""
        self.server.command(rollout, event)
        self.decisions.append(f"an operator says {event.value}")

    def remove(self, name: str) -> None:
        """Take a device out of the fleet and of the world."""
        self.server.remove(name)
        del self.devices[name]
        self.decisions.append(f"{name} is removed")

    def switch_off(self, name: str, ms: int) -> None:
        """Cut a device's power now; it is back after `ms`."""
        device = self.devices[name]
        device.cut_soon(1, self.chance.choice(list(Cut)), whole_device=True)
        device.off_ms = ms

    def step(self) -> None:
        """Let the device that is furthest behind tick, and the server look when its time has come."""
        device = min(self.devices.values(), key=lambda d: d.clock.now_ms)
        self.server.now_ms = max(self.server.now_ms, device.clock.now_ms)
        if self.server.now_ms >= self._next_look_ms:
            self._next_look_ms = self.server.now_ms + LOOK_MS
            dies = self.chance.random() < self.server_dies
            self.deaths += dies
            try:
                self.server.look(most=self.chance.randint(0, 2) if dies else None)
            except WrongState as error:
                raise Violation(f"the plan wants what the machine does not know: {error.line()}") from error
        before = device.agent
        device.tick()
        if device.agent is not None and device.agent is before:
            self._ticked(device)

    def run(self, done: Callable[[], bool], *, ms: int) -> bool:
        """Step until `done`, at most `ms` of simulated time; return whether it came."""
        until = self.now_ms + ms
        for _ in range(TICKS_MAX):
            if done():
                return True
            if self.now_ms >= until:
                return False
            self.step()
        raise Violation(f"hung: {TICKS_MAX} ticks and no end")

    def release_of(self, name: str) -> str:
        """The release that answers users on a device now, empty if none does."""
        gateway = self.devices[name].gateway
        child = gateway.children.get(gateway.serving) if gateway.serving is not None else None
        return child.load.release if child is not None else ""

    def committed(self, name: str) -> str:
        """The release that a device would boot into, by its own journal."""
        state = self.devices[name].state
        held = state.slots.get(state.committed) if state.committed is not None else None
        return held.release if held is not None else ""

    # Invariants

    def _ticked(self, device: SimDevice) -> None:
        name = device.config.device.id
        running = {child.load.release for child in device.gateway.children.values()}
        has = running | {held.release for held in device.state.slots.values()}
        for rollout in self.server.rollouts:
            if rollout.release in has and not any(member.device == name for member in rollout.exposed):
                raise Violation(f"{name} runs {rollout.release} and was not exposed to it")
        for entry in device.state.condemned:
            slots = frozenset(s for s, held in device.state.slots.items() if held.release == entry.release)
            before = self._held.setdefault((name, entry.release), slots)
            if not slots <= before:
                raise Violation(f"{name} took {entry.release} although it knows that it is condemned")
            self._held[name, entry.release] = slots

    def _decided(self, rollout: RolloutRow, model: plan.Model, decision: plan.Decision) -> None:
        event = decision.event.value if decision.event is not None else "orders"
        self.decisions.append(f"{self.server.now_ms / 1000:.0f} s {event}: {decision.reason}")
        exposed = len(rollout.exposed)
        if exposed > rollout.cap:
            raise Violation(f"{exposed} devices are exposed in stage {rollout.stage + 1}, whose cap is {rollout.cap}")
        for device, _ in decision.orders:
            order = self.server.devices[device].order
            if order is not None and order.release in self.server.condemned and order.mode in TAKEN_AGAIN:
                raise Violation(f"{device} is ordered to {order.mode.value} {order.release}, which is condemned")
        if decision.event is Event.HARMED:
            self._condemned(rollout, model)
        if decision.event is Event.TAKEN_BACK:
            self._taken_back(rollout)
        if decision.event is Event.COMMITTED:
            self._completed(rollout)

    def _condemned(self, rollout: RolloutRow, model: plan.Model) -> None:
        verdict = model.verdict
        if verdict is None or not any(found.condemns for found in verdict.findings):
            raise Violation(f"{rollout.release} was condemned without evidence at its threshold")

    def _taken_back(self, rollout: RolloutRow) -> None:
        if rollout.state in TAKING_BACK:
            raise Violation(f"taken back and still {rollout.state.value}")
        for member in rollout.exposed:
            if not member.previous or member.device not in self.devices:
                continue
            device = self.devices[member.device]
            if device.agent is not None and self.committed(member.device) == rollout.release:
                raise Violation(f"{rollout.release} was called taken back, and {member.device} still has it")
            if device.agent is not None and self.release_of(member.device) == rollout.release:
                raise Violation(f"{rollout.release} was called taken back, and serves on {member.device}")

    def _completed(self, rollout: RolloutRow) -> None:
        wrong = [kind for kind in (Kind.ROLLBACK, Kind.PAUSE) if rollout.verdict and rollout.verdict.kind is kind]
        if wrong and rollout.state is RolloutState.COMPLETED:
            raise Violation(f"{rollout.release} is complete although the gate said {wrong[0].value}")
