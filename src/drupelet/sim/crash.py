"""Power cuts at every durable step of a story, and stories drawn by a seed.

A story is what operator and fleet do to one device, and what must be so in the end. `every_cut` tells it once in
peace to count its durable steps, then again for each step, each place in the step, and both kinds of death: the agent
alone (SIGKILL), or the whole device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drupelet.agent.model import RESTING
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.sim.device import Plan, SimDevice, Violation
from drupelet.sim.disk import Cut
from drupelet.sim.traits import Traits
from drupelet.wire.manifest import ReleaseManifest

Story = Callable[[SimDevice], None]


def expect(held: bool, what: str) -> None:
    """Raise `Violation` if a story did not come out as it must."""
    if not held:
        raise Violation(what)


def serves(device: SimDevice, manifest: ReleaseManifest) -> bool:
    """Whether users are answered by this release now."""
    return device.gateway.serving_digest == manifest.variants[0].digest


def install(device: SimDevice) -> None:
    """A first release is installed, then a second one."""
    first = device.forge("1.1")
    device.order(Mode.INSTALL, first)
    device.settle()
    if _failed(device):
        return _interrupted(device)
    expect(serves(device, first), "1.1 was installed and does not serve")
    second = device.forge("1.2")
    device.order(Mode.INSTALL, second)
    device.settle()
    if _failed(device):
        expect(serves(device, first), "1.2 failed and 1.1 does not serve")
        return _interrupted(device)
    expect(serves(device, second), "1.2 was installed and does not serve")
    return None


def _rests(device: SimDevice, serial: int) -> bool:
    """Whether the device has accepted this order and done with it."""
    return device.state.serial >= serial and device.state.state in RESTING


def _failed(device: SimDevice) -> bool:
    return device.state.state is UpdateState.FAILED


def _interrupted(device: SimDevice) -> None:
    expect(
        device.crashes > 0 and device.state.reason is Reason.INTERRUPTED,
        f"failed without a power cut to blame: {device.state.reason.value} {device.state.detail}",
    )


def _with_first(device: SimDevice) -> ReleaseManifest:
    first = device.forge("1.1")
    device.order(Mode.INSTALL, first)
    device.settle()
    return first


def canary_then_commit(device: SimDevice) -> None:
    """A canary serves in drawn blocks, then is committed everywhere."""
    first = _with_first(device)
    second = device.forge("1.2")
    device.order(Mode.CANARY, second)
    device.run(
        lambda d: _rests(d, 2) or (d.state.update is not None and d.state.update.pairs_done >= 2),
        what="two pairs",
    )
    device.order(Mode.COMMIT, second)
    device.run(lambda d: _told(d) and d.state.state in RESTING, what="the commit")
    if _failed(device):
        expect(serves(device, first), "the canary failed and 1.1 does not serve")
        return _interrupted(device)
    expect(serves(device, second), "1.2 was committed and does not serve")
    return None


def _told(device: SimDevice) -> bool:
    """Whether the device has seen the newest order: it accepted it, or said why not."""
    order = device.fleet.order
    if order is None or device.trust.order != order:
        return False
    return device.state.serial == order.serial or device.state.state is UpdateState.FAILED


def revert(device: SimDevice) -> None:
    """A committed release turns out bad, is condemned, and every device goes back without a download."""
    first = _with_first(device)
    second = device.forge("1.2")
    device.order(Mode.INSTALL, second)
    device.settle()
    sent = dict(device.source.sent)
    device.condemn(second)
    device.order(Mode.REVERT, first)
    device.settle()
    expect(serves(device, first), "1.1 was ordered back and does not serve")
    expect(device.source.sent == sent, "going back downloaded something")
    expect(device.state.is_condemned("kiosk/1.2", "") is not None, "1.2 is not condemned")
    device.order(Mode.INSTALL, second)
    device.settle()
    expect(device.state.reason is Reason.CONDEMNED, "a condemned release was not refused")
    expect(serves(device, first), "a condemned release serves")


def taken_back(device: SimDevice) -> None:
    """A canary's child keeps dying and no server is there to ask."""
    first = _with_first(device)
    bad = device.forge("1.2", Traits(deaths_a_look=2))
    device.order(Mode.CANARY, bad)
    device.run(
        lambda d: d.state.state is UpdateState.PROBATION or _rests(d, 2),
        what="probation",
    )
    device.fleet.away = True
    device.run(lambda d: d.state.state in RESTING, what="the device to help itself")
    expect(serves(device, first), "the device did not go back by itself")
    expect(device.state.reason in (Reason.CHILD_DIED, Reason.INTERRUPTED), f"went back for {device.state.reason}")


def compaction(device: SimDevice) -> None:
    """The journal is compacted again and again while an update runs."""
    first = _with_first(device)
    device.condemn(device.forge("0.9"))
    second = device.forge("1.2")
    device.order(Mode.CANARY, second)

    def squeezed(d: SimDevice) -> bool:
        if d.agent is not None:
            d.agent.compact()
        return _rests(d, 2) or (d.state.update is not None and d.state.update.pairs_done >= 1)

    device.run(squeezed, what="a pair")
    device.order(Mode.REVERT, first)
    device.settle()
    expect(serves(device, first), "1.1 does not serve")
    expect(device.state.is_condemned("kiosk/0.9", "") is not None, "a condemned release was forgotten")


STORIES: dict[str, Story] = {
    "install": install,
    "canary then commit": canary_then_commit,
    "revert": revert,
    "taken back": taken_back,
    "compaction": compaction,
}


@dataclass(frozen=True, slots=True)
class Count:
    """What was tried."""

    steps: int
    cuts: int


def plans(steps: int) -> Iterator[Plan]:
    """Every cut of a story with so many durable steps."""
    for at in range(1, steps + 1):
        for how in Cut:
            for whole_device in (True, False):
                yield Plan(at, how, whole_device)


def every_cut(story: Story, *, seed: int = 0, stride: int = 1) -> Count:
    """Tell a story with each power cut (each `stride`-th); raise `Violation` naming the cut that breaks it."""
    peaceful = SimDevice(seed=seed)
    story(peaceful)
    steps = peaceful.disk.count
    cuts = 0
    for plan in list(plans(steps))[seed % stride :: stride]:
        device = SimDevice(seed=seed, plan=plan)
        try:
            story(device)
        except Violation as violation:
            operation = device.disk.operations[plan.at - 1] if plan.at <= device.disk.count else None
            raise Violation(f"{plan} at {operation}: {violation}") from violation
        cuts += 1
    return Count(steps, cuts)


def run(seed: int) -> SimDevice:
    """Let a device live through orders, faults and power cuts drawn by a seed; raise `Violation` with the seed."""
    device = SimDevice(seed=seed)
    try:
        _live(device, random.Random(seed))
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}") from violation
    return device


def _live(device: SimDevice, chance: random.Random) -> None:
    good = [_with_first(device)]
    for number in range(2, 2 + chance.randint(3, 6)):
        traits = chance.choice(
            (
                Traits(),
                Traits(),
                Traits(answer="banana"),
                Traits(loads=False),
                Traits(deaths_a_look=1),
                Traits(memory_bytes=200_000_000),
            )
        )
        manifest = device.forge(f"1.{number}", traits, signed=chance.random() > 0.1)
        if chance.random() < 0.2:
            device.condemn(chance.choice(good[:-1] or [manifest]))
        device.order(chance.choice((Mode.INSTALL, Mode.CANARY)), manifest)
        _for_a_while(device, chance)
        if chance.random() < 0.5:
            device.order(Mode.COMMIT, manifest)
            _for_a_while(device, chance)
        if chance.random() < 0.4:
            device.condemn(manifest, "the gate said so")
            device.order(Mode.REVERT, good[-1])
            _for_a_while(device, chance)
        device.fleet.away = device.gateway.down = False
        device.disk.full = device.source.away = False
        if _is_good(device, manifest):
            good.append(manifest)
    device.run(lambda d: d.state.state in RESTING or d.state.state is UpdateState.PROBATION, what="rest")


def _for_a_while(device: SimDevice, chance: random.Random) -> None:
    """Let time pass, in which things may break."""
    device.fleet.away = chance.random() < 0.2
    device.source.away = chance.random() < 0.2
    device.disk.full = chance.random() < 0.1
    if chance.random() < 0.5:
        device.cut_soon(chance.randint(1, 60), chance.choice(list(Cut)), whole_device=chance.random() < 0.5)
    until = device.clock.now_ms + chance.randint(500, 40_000)
    device.run(lambda d: d.clock.now_ms >= until, what="time to pass")


def _is_good(device: SimDevice, manifest: ReleaseManifest) -> bool:
    state = device.state
    held = state.slots.get(state.committed) if state.committed is not None else None
    return held is not None and held.release == manifest.release.path
