"""The life of a rollout, drawn by a seed: a fleet, a release of some kind, faults while it goes out, and its end.

Beyond the invariants of `world`, which hold at every moment, the story must end well: once the network is whole again
a rollout ends, or says what it waits for; a bad release is never completed and is gone from every device; a good one is
completed unless a fault or an operator stood in its way; whoever the rollout did not reach still has the old release.
"""

from __future__ import annotations

from dataclasses import dataclass

from drupelet.core.states import RolloutState as S
from drupelet.fleet.machine import TAKING_BACK, Event
from drupelet.fleet.plan import PausedBy, waits_for
from drupelet.fleet.policy import RolloutPolicy, policy_of_builtins
from drupelet.sim.device import Violation
from drupelet.sim.disk import Cut
from drupelet.sim.server import RolloutRow
from drupelet.sim.traits import Traits
from drupelet.sim.world import World

KINDS: dict[str, Traits] = {
    "good": Traits(),
    "nonsense": Traits(answer="banana"),
    "slow": Traits(slow=2.0),
    "failing": Traits(errors=0.3),
    "crashing": Traits(deaths_a_look=2),
    "not loading": Traits(loads=False),
}
OLD = "kiosk/1.1"
STORY_MS, CALM_MS = 300_000, 500_000
DECIDED_MS = 700_000
"""After so long without proof a stage waits for a person."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What the seed draws, or what a scenario names."""

    kind: str = "good"
    devices: int = 4
    stages: tuple[str, ...] = ("1", "100%")
    faults: bool = False
    failures_max: int = 0
    operator: Event | None = None
    operator_at_ms: int = 0
    lost: bool = False
    """One exposed device goes away for ever while the release is out."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it went."""

    draw: Draw
    world: World
    rollout: RolloutRow
    waits: str

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, for people."""
        rollout, draw = self.rollout, self.draw
        serving = [self.world.release_of(name) for name in self.world.devices]
        return (
            f"{draw.devices} devices, stages {','.join(draw.stages)}, a release that is {draw.kind}"
            + (", with faults" if draw.faults else "")
            + (f", an operator's {draw.operator.value}" if draw.operator else "")
            + (", a device lost" if draw.lost else ""),
            f"{rollout.state.value} after {self.world.now_ms / 1000:.0f} s: {rollout.reason}"[:300],
            f"{len(rollout.exposed)} exposed, {len(rollout.pairs)} pairs, {len(self.world.decisions)} decisions, "
            f"{self.world.cuts} power cuts, {self.world.deaths} server deaths; "
            f"{serving.count(rollout.release)} serve the new release, {serving.count(OLD)} the old",
            *((f"waits for {self.waits}",) if self.waits else ()),
        )


def drawn(world: World, *, devices: int) -> Draw:
    """Draw a story."""
    chance = world.chance
    operator = chance.choice((Event.PAUSE, Event.ABORT, Event.ROLLBACK)) if chance.random() < 0.2 else None
    return Draw(
        kind=chance.choices(tuple(KINDS), weights=(6, 2, 4, 2, 2, 1))[0],
        devices=devices,
        stages=chance.choice((("1", "100%"), ("1", "2", "100%"), ("2",), ("100%",), ("1", "50%"))),
        faults=chance.random() < 0.7,
        failures_max=chance.choice((0, 1)),
        operator=operator,
        operator_at_ms=chance.randint(1_000, 200_000),
        lost=chance.random() < 0.15,
    )


def run(seed: int) -> Ending:
    """Let a fleet live through a rollout drawn by a seed; raise `Violation` with the seed."""
    devices = 3 + seed % 3
    world = World(seed=seed, count=devices)
    try:
        return tell(world, drawn(world, devices=devices))
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}; " + " | ".join(world.decisions[-4:])) from violation


def policy(draw: Draw) -> RolloutPolicy:
    """A policy whose blocks last seconds."""
    shares = 0.5 if draw.failures_max else 1.0
    return policy_of_builtins(
        {
            "crossover": {"block_ms": 4_000, "discard_ms": 400, "pairs_max": 500},
            "probation_ms": 3_000,
            "verdict_ms_max": 7_200_000,
            "trial_failures_max": draw.failures_max,
            "staged_share": shares,
            "completed_share": shares,
            "gate": {"pairs_min": 4, "fresh_s": 60.0, "deadline_s": DECIDED_MS / 1000.0, "coverage": shares},
        }
    )


def tell(world: World, draw: Draw) -> Ending:
    """Install the old release everywhere in peace, roll the new one out amid the faults, and see how it ends."""
    first = world.start("1.1", Traits(), wanted=("100%",), policy=policy_of_builtins({"design": "none"}))
    _expect(world.run(lambda: first.state.ended, ms=300_000), "the first installation never ended")
    _expect(first.state is S.COMPLETED, f"the first installation is {first.state.value}: {first.reason}")
    begun = world.now_ms
    rollout = world.start("1.2", KINDS[draw.kind], wanted=draw.stages, policy=policy(draw))
    _amid_faults(world, rollout, draw, until_ms=begun + STORY_MS)
    for line in world.lines.values():
        line.loss, line.away = 0.0, False
    world.server_dies = 0.0
    lost = _lose_one(world, rollout) if draw.lost else ""
    waits = _in_peace(world, rollout)
    if lost and rollout.state in TAKING_BACK:
        _expect(lost in waits, f"{lost} is lost, and it waits for {waits!r}")
        world.remove(lost)
        waits = _in_peace(world, rollout)
    elif lost:
        world.lines[lost].away = False
        world.run(lambda: False, ms=30_000)
    ending = Ending(draw, world, rollout, waits)
    _judge(ending)
    return ending


def _amid_faults(world: World, rollout: RolloutRow, draw: Draw, *, until_ms: int) -> None:
    chance = world.chance
    begun, said = world.now_ms, draw.operator is None
    world.server_dies = 0.2 if draw.faults else 0.0
    for line in world.lines.values():
        line.loss = chance.uniform(0.0, 0.4) if draw.faults else 0.0
    while not rollout.state.ended and world.now_ms < until_ms:
        if draw.faults:
            _fault(world)
        world.run(lambda: rollout.state.ended, ms=chance.randint(5_000, 30_000))
        if draw.operator is not None and not said and world.now_ms - begun >= draw.operator_at_ms:
            world.command(rollout, draw.operator)
            said = True
        if draw.lost and rollout.state in (S.JUDGING, S.PAUSED):
            return


def _fault(world: World) -> None:
    chance = world.chance
    name = chance.choice(tuple(world.devices))
    device, line = world.devices[name], world.lines[name]
    match chance.randint(0, 5):
        case 0:
            device.cut_soon(chance.randint(1, 40), chance.choice(list(Cut)), whole_device=chance.random() < 0.5)
        case 1:
            world.switch_off(name, chance.randint(1_000, 60_000))
        case 2:
            line.away = not line.away
        case 3:
            device.source.away = not device.source.away
        case 4:
            device.disk.full = not device.disk.full
        case _:
            for other in world.devices.values():
                other.disk.full = other.source.away = False


def _lose_one(world: World, rollout: RolloutRow) -> str:
    """Cut an exposed device off for ever, and take the release back if nothing else does."""
    if rollout.state.ended or not rollout.exposed:
        return ""
    lost = rollout.exposed[-1].device
    world.lines[lost].away = True
    world.command(rollout, Event.ROLLBACK)
    return lost


def _in_peace(world: World, rollout: RolloutRow) -> str:
    """Let everything come to its end and return what the rollout waits for, empty if it has ended."""
    for device in world.devices.values():
        device.disk.full = device.source.away = False
    if rollout.state is S.PAUSED and rollout.paused_by is PausedBy.OPERATOR:
        world.command(rollout, Event.RESUME)
    if not world.run(lambda: rollout.state.ended, ms=CALM_MS) and rollout.state not in TAKING_BACK:
        waits = _waits(world, rollout)
        _expect(waits not in ("", "the next look"), f"{rollout.state.value} for ever, and it waits for {waits!r}")
        world.command(rollout, Event.ABORT)
        world.run(lambda: rollout.state.ended, ms=CALM_MS)
    world.run(lambda: False, ms=30_000)
    return _waits(world, rollout)


def _waits(world: World, rollout: RolloutRow) -> str:
    return waits_for(world.server.model(rollout))


def _judge(ending: Ending) -> None:
    """Raise `Violation` unless the story ended as it must."""
    world, rollout, draw = ending.world, ending.rollout, ending.draw
    state, release = rollout.state, rollout.release
    _expect(state.ended, f"still {state.value} in peace, waiting for {ending.waits!r}")
    exposed = {member.device for member in rollout.exposed}
    for name in world.devices:
        serves = world.release_of(name)
        if name not in exposed or state is not S.COMPLETED:
            _expect(serves == OLD, f"{name} serves {serves!r} after the release was {state.value}")
        elif draw.failures_max == 0:
            _expect(serves == release, f"{name} serves {serves!r} although {release} is completed")
    if draw.kind != "good":
        _expect(state is not S.COMPLETED, f"a release that is {draw.kind} was completed")
    elif not draw.faults and draw.operator is None and not draw.lost:
        _expect(state is S.COMPLETED, f"a good release is {state.value}: {rollout.reason}")
    if draw.kind == "slow" and not draw.faults and draw.operator is None and not draw.lost:
        _expect(state is S.ROLLED_BACK, f"a slow release is {state.value}: {rollout.reason}")
    if (state is S.ROLLED_BACK) != (release in world.server.condemned):
        raise Violation(f"{release} is {state.value}, condemned: {release in world.server.condemned}")


def _expect(held: bool, what: str) -> None:
    if not held:
        raise Violation(what)
