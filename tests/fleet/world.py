"""A fleet server without HTTP and threads, its devices, and time that moves by hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from drupelet.core.errors import DrupeletError
from drupelet.core.names import ReleaseId, Slot
from drupelet.core.states import RolloutState
from drupelet.fleet.app import Fleet, Settings
from drupelet.fleet.machine import Event
from drupelet.fleet.policy import policy_of_builtins
from drupelet.fleet.reconcile import Reconciler
from drupelet.fleet.rollouts import Wanted
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import devices
from drupelet.fleet.views import RolloutPage
from drupelet.trust.director import Director
from drupelet.wire.codec import decode_as
from drupelet.wire.orders import Order
from tests.fakes.fleet_device import NOW_MS, FakeDevice
from tests.fakes.fleet_images import FakeImages
from tests.wire.examples import manifest

FAST = {
    "crossover": {"block_ms": 3000, "discard_ms": 500, "pairs_max": 500},
    "gate": {"pairs_min": 4, "deadline_s": 100_000.0, "fresh_s": 600.0},
}


class World:
    """Everything a rollout needs."""

    def __init__(self, store: Store, director: Director) -> None:
        self.now = NOW_MS
        self.store = store
        self.images = FakeImages()
        self._director = director
        self.fleet = self.server(store)
        self.devices: dict[str, FakeDevice] = {}
        self._draws = 0

    def server(self, store: Store, **settings: Any) -> Fleet:
        """A server process on this database, as after a restart."""
        return Fleet(
            store, director=self._director, images=self.images, secret=b"s" * 32, clock=lambda: self.now,
            settings=Settings(**settings),
        )  # fmt: skip

    @property
    def reconciler(self) -> Reconciler:
        return self.fleet.reconciler

    def release(self, version: str, **changes: object) -> ReleaseId:
        """Publish and register a release."""
        made = manifest(version=version, **changes)
        self.images.put(made)
        self.fleet.releases.add(made.release, by="test")
        return made.release

    def add(self, *names: str, board: str = "pi5-8gb", approve: bool = True, has: str = "", **labels: str) -> None:
        """Enrol devices; `has` is a registered release they have committed."""
        for name in names:
            device = FakeDevice(name, clock=lambda: self.now, board=board, labels=labels)
            self.devices[name] = device
            self.fleet.enrolment.enrol(device.enrol_request(), address="127.0.0.1")
            if approve:
                self.fleet.devices.decide(name, approve=True, by="test")
            if has:
                digest = self.fleet.reader.release(has).manifest_digest
                device.slots[Slot.A] = (has, digest)
                device.committed = Slot.A
        if approve:
            self.poll(*names)

    def poll(self, *names: str) -> None:
        """Let devices poll; all if none is named."""
        chosen = [self.devices[name] for name in names or self.devices]
        for device, answer in zip(chosen, self.fleet.intake.take([d.poll() for d in chosen]), strict=True):
            if isinstance(answer, DrupeletError):
                raise answer
            device.acked(answer)

    def order(self, name: str) -> Order | None:
        """The standing order, if it is signed."""
        with self.store.read() as connection:
            row = connection.execute(select(devices).where(devices.c.id == name)).one()
        return decode_as(Order, row.order_json) if row.order_json and row.signed_serial >= row.order_serial else None

    def start(
        self, release: ReleaseId, *, selector: str = "", stages: tuple[str, ...] = ("1", "3", "5"), **policy: object
    ) -> int:
        """Start a rollout with a fast gate."""
        wanted = Wanted(
            release=release, selector=selector, stages=stages, policy=policy_of_builtins({**FAST, **policy}), seed="7"
        )
        return self.fleet.rollouts.start(wanted, by="test")

    def direct(self, release: ReleaseId, *, stages: tuple[str, ...] = ("100%",)) -> int:
        """Start a rollout without a gate."""
        wanted = Wanted(release=release, selector="", stages=stages, policy=policy_of_builtins({"design": "none"}))
        return self.fleet.rollouts.start(wanted, by="test")

    def command(self, number: int, event: Event) -> None:
        self.fleet.rollouts.command(number, event, by="test", reason="because")

    def turn(self, *, offline: frozenset[str] = frozenset(), pairs: int = 1) -> None:
        """One round: the fleet looks, devices obey and measure and poll, half a minute passes."""
        self.reconciler.look()
        here = [device for name, device in self.devices.items() if name not in offline]
        for device in here:
            device.obey(self.order(device.name))
            self._draws += 1
            device.measure(first=("new", "old", "old", "new", "old")[self._draws % 5], pairs=pairs)
        self.now += 30_000
        if here:
            self.poll(*(device.name for device in here))

    def until(
        self, number: int, *states: RolloutState, turns: int = 60, offline: frozenset[str] = frozenset()
    ) -> RolloutPage:
        """Take turns until the rollout is in one of these states."""
        for _ in range(turns):
            page = self.fleet.reader.rollout(number)
            if RolloutState(page.rollout.state) in states:
                return page
            self.turn(offline=offline)
        raise AssertionError(f"still {page.rollout.state} after {turns} turns: {page.rollout.reason}")

    def exposed(self, number: int) -> set[str]:
        return {m.device for m in self.fleet.reader.rollout(number).members if m.exposed}
