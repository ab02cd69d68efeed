"""A server that dies at every step of a rollout, before and after each commit, and one that looks twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from drupelet.core.states import RolloutState
from drupelet.fleet.store.engine import Store
from tests.fleet.test_rollout import FIVE
from tests.fleet.world import World

S = RolloutState


class Died(BaseException):
    """The process is gone: nothing after this point runs."""


class MortalStore(Store):
    """Dies at the end of its `dies_in`-th write, before the commit."""

    def __init__(self, store: Store, dies_in: int) -> None:
        super().__init__(store.engine)
        self.dies_in = dies_in

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
            self.dies_in -= 1
            if self.dies_in == 0:
                raise Died


def look_dying(world: World) -> int:
    """Look until there is nothing to do, by servers of which each dies one write later than the last."""
    deaths = 0
    while True:
        server = world.server(MortalStore(world.store, deaths + 1))
        try:
            server.reconciler.look()
        except Died:
            deaths += 1
            continue
        return deaths


@pytest.mark.parametrize(("slow", "ends"), [(1.0, S.COMPLETED), (3.0, S.ROLLED_BACK)])
def test_dying_before_every_commit_changes_nothing_in_the_end(world: World, slow: float, ends: S) -> None:
    world.release("1.1")
    world.add(*FIVE[:3], has="kiosk/1.1")
    for device in world.devices.values():
        device.slow = slow
    number = world.start(world.release("1.2"), stages=("1", "3"))
    deaths = 0
    serials: dict[str, int] = {}
    for _ in range(60):
        deaths += look_dying(world)
        for name in world.devices:
            order = world.order(name)
            if order is not None:
                assert order.serial >= serials.get(name, 0)
                serials[name] = order.serial
        page = world.fleet.reader.rollout(number)
        assert page.rollout.exposed <= page.rollout.stages[page.rollout.stage].cap
        if page.rollout.ended:
            break
        world.turn(pairs=4)
    assert page.rollout.state == ends.value
    assert deaths > 10
    wanted = "kiosk/1.2" if ends is S.COMPLETED else "kiosk/1.1"
    assert {device.release for device in world.devices.values()} == {wanted}
    assert max(serials.values()) <= 4  # no order was given twice: install or canary, commit or revert, and the list


def test_looking_again_changes_nothing(world: World) -> None:
    world.release("1.1")
    world.add(*FIVE[:3], has="kiosk/1.1")
    number = world.start(world.release("1.2"), stages=("1", "3"))
    for _ in range(12):
        world.turn()
        world.reconciler.look()
        before = (world.fleet.reader.rollout(number).history, [world.order(name) for name in world.devices])
        assert world.reconciler.look() == 0
        assert world.server(world.store).reconciler.look() == 0
        after = (world.fleet.reader.rollout(number).history, [world.order(name) for name in world.devices])
        assert after == before


def test_a_faster_server_wins_and_the_other_looks_again(world: World) -> None:
    world.release("1.1")
    world.add(*FIVE[:3], has="kiosk/1.1")
    number = world.start(world.release("1.2"), stages=("1", "3"))
    others = [world.server(world.store) for _ in range(3)]
    for _ in range(40):
        for other in others:
            other.reconciler.look()
        world.turn(pairs=2)
        if world.fleet.reader.rollout(number).rollout.ended:
            break
    assert world.fleet.reader.rollout(number).rollout.state == "completed"
