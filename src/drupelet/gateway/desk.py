"""The one place where the room's decisions meet its adapters: requests come in, the machine's effects go out.

Everything happens on one event loop, so nothing here takes a lock; only `place`, `drained` and `ask` wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason
from drupelet.gateway.admission import Admission, Ticket
from drupelet.gateway.children import Children, Running, serving_of
from drupelet.gateway.config import Config
from drupelet.gateway.effects import CheckDigest, Launch
from drupelet.gateway.errors import ChildGone, NotServing, QueueFull
from drupelet.gateway.machine import (
    AwaitDrained,
    ChildState,
    CountExit,
    Drained,
    Effect,
    Event,
    Fallback,
    LoadAsked,
    Machine,
    Reply,
    Rest,
    Routed,
    StartChild,
    Started,
    StopChild,
)
from drupelet.gateway.router import Conversation, Router
from drupelet.telemetry.metrics import GatewayMetrics
from drupelet.telemetry.windows import WindowRecorder
from drupelet.wire.control import Answer, Load

FALLBACK_REST_MS_MAX = 600_000
"""Between two tries to load what `serve.json` names when nothing there could be loaded."""

_log = logging.getLogger("drupelet.gateway")


class Desk:
    """Admits requests to the slots and carries out what the machine decides."""

    def __init__(
        self,
        config: Config,
        *,
        launch: Launch,
        check: CheckDigest,
        recorder: WindowRecorder,
        metrics: GatewayMetrics,
        read_serve: Callable[[], tuple[Load, ...]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = config.limits
        self.config = config
        self.machine = Machine()
        self.router = Router(conversations_max=limits.conversations_max, idle_ms_max=limits.conversation_idle_ms_max)
        self.admission = Admission(queue_max=limits.queue_max, parallel=config.child.parallel)
        self.recorder = recorder
        self.metrics = metrics
        self.children = Children(launch=launch, check=check, settings=config.child, post=self.post)
        self.clock = clock
        self.closing = False
        self.exits: dict[Slot, dict[ExitReason, int]] = {slot: dict.fromkeys(ExitReason, 0) for slot in Slot}
        self._read_serve = read_serve
        self._events: deque[Event] = deque()
        self._working = False
        self._asks: dict[int, asyncio.Future[Answer]] = {}
        self._last_ask = 0
        self._waits: dict[Ticket, asyncio.Future[None]] = {}
        self._quiet: dict[Slot, list[asyncio.Future[None]]] = {slot: [] for slot in Slot}
        self._fallbacks = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Load what the device committed; the next of `serve.json` follows by itself if that cannot be loaded."""
        loads = self._read_serve()
        if loads:
            self.post(LoadAsked(loads[0]))

    def post(self, event: Event) -> None:
        """Let the machine decide about `event`, and do what it says. Events that arise on the way wait their turn."""
        self._events.append(event)
        if self._working:
            return
        self._working = True
        try:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Started):
                    self._fallbacks = 0
                for effect in self.machine.on(event):
                    self._do(effect)
        finally:
            self._working = False
        self._pump()

    async def ask(self, event_of: Callable[[int], Event]) -> Answer:
        """Post the event made with a fresh number and return the machine's answer to it."""
        self._last_ask += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asks[self._last_ask] = future
        try:
            self.post(event_of(self._last_ask))
            return await future
        finally:
            self._asks = {ask: waiting for ask, waiting in self._asks.items() if waiting is not future}

    @asynccontextmanager
    async def place(self, conversation: Conversation, *, again: bool = False) -> AsyncIterator[Running]:
        """Wait for a place and yield the child to ask. `again` is for a request whose child died: it goes in front.

        Raises `QueueFull`, `NotServing`, or `ChildGone` if the child died in this very moment.
        """
        ticket = Ticket(conversation)
        self.admission.join(ticket, in_front=again)
        try:
            self._pump()
            if ticket.slot is None:
                if self.closing or not self.machine.hopeful():
                    raise NotServing("no release is being served")
                if not again and self.admission.overfull():
                    raise QueueFull(f"{self.config.limits.queue_max} requests are waiting already")
                await self._wait(ticket)
            running = self.children.get(ticket.slot) if ticket.slot is not None else None
            if running is None:
                raise ChildGone("the child ended as the request was to begin")
            yield running
        finally:
            slot = ticket.slot
            self.admission.leave(ticket)
            if slot is not None:
                self._pump()
                self._tell_quiet(slot)

    async def drained(self, slot: Slot, *, timeout_ms: int) -> bool:
        """Wait until no request runs on the slot; returns False if the time was over first."""
        if not self.admission.running(slot):
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._quiet[slot].append(future)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await future
        except TimeoutError:
            return not self.admission.running(slot)
        finally:
            self._quiet[slot] = [waiting for waiting in self._quiet[slot] if waiting is not future]
        return True

    def let_leave(self, slot: Slot) -> None:
        """Let conversations move away from a slot that is not routed to."""
        self.router.close(slot)
        self._pump()

    def tick(self, *, epoch_ms: int) -> None:
        """Do what is due about once a second: windows that are old enough, the children's memory."""
        now = self.clock()
        self.recorder.anchor(now=now, epoch_ms=epoch_ms)
        for slot in Slot:
            if (running := self.children.get(slot)) is not None:
                self.recorder.memory(running.serving, running.child.rss_bytes(), now=now)
        self.recorder.tick(now)

    def measure(self) -> None:
        """Tell the metrics what holds now: what each slot serves and uses, and how long the line is."""
        for slot in Slot:
            running = self.children.get(slot)
            if running is None:
                self.metrics.unloaded(slot)
                continue
            load = running.load
            version = load.release.rpartition("/")[2]
            self.metrics.serving(slot, model=load.model, version=version, digest=load.digest, quant=load.variant)
            self.metrics.child_memory(slot, resident_bytes=running.child.rss_bytes())
        self.metrics.queue(running=self.admission.running(), waiting=self.admission.waiting)

    async def close(self) -> None:
        """Take no more requests, let those under way end, then end the children."""
        self.closing = True
        self._pump()
        ends = [self.drained(slot, timeout_ms=self.config.limits.drain_ms_max) for slot in Slot]
        await asyncio.gather(*ends)
        for task in self._tasks:
            task.cancel()
        await self.children.close()

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, StartChild):
            self.router.reopen(effect.slot)
            self.children.start(effect)
        elif isinstance(effect, StopChild):
            self.children.stop(effect)
        elif isinstance(effect, Rest):
            self.children.rest(effect)
        elif isinstance(effect, Routed):
            self._route(effect)
        elif isinstance(effect, Reply):
            future = self._asks.pop(effect.ask, None)
            if future is not None and not future.done():
                future.set_result(effect.answer)
        elif isinstance(effect, CountExit):
            self.exits[effect.load.slot][effect.reason] += 1
            self.recorder.exited(serving_of(effect.load), effect.reason, now=self.clock())
            self.metrics.exited(effect.reason)
        elif isinstance(effect, AwaitDrained):
            self._spawn(self._say_drained(effect))
        else:
            self._spawn(self._fall_back(effect))

    def _route(self, effect: Routed) -> None:
        self.router.reopen(effect.load.slot)
        self.recorder.route(serving_of(effect.load), now=self.clock(), block=effect.block, discard_ms=effect.discard_ms)

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say_drained(self, effect: AwaitDrained) -> None:
        await self.drained(effect.slot, timeout_ms=self.config.limits.drain_ms_max)
        self.post(Drained(effect.slot, effect.turn))

    async def _fall_back(self, effect: Fallback) -> None:
        """Load what `serve.json` names for the other slot: at once the first time, then after growing rests."""
        self._fallbacks += 1
        if self._fallbacks > 1:
            rest_ms = min(self.config.child.restart_ms_min * 2 ** min(self._fallbacks, 32), FALLBACK_REST_MS_MAX)
            await asyncio.sleep(rest_ms / 1000)
        if self.machine.usable() or self.closing:
            return
        loads = self._read_serve()
        others = [load for load in loads if load.slot is not effect.instead_of] or list(loads)
        for load in others[:1]:
            if self.machine.slots[load.slot].state is ChildState.EMPTY:
                _log.warning("slot %s cannot serve; loading %s", effect.instead_of.value, load.release)
                self.post(LoadAsked(load))

    def _pump(self) -> None:
        now_ms = int(self.clock() * 1000)
        usable = frozenset() if self.closing else self.machine.usable()

        def choose(asked: Conversation) -> Slot | None:
            return self.router.choose(asked, routed=self.machine.routed, usable=usable, now_ms=now_ms)

        for ticket in self.admission.pump(choose):
            if ticket.slot is not None:
                self.router.bind(ticket.conversation, ticket.slot, now_ms=now_ms)
            if (waiting := self._waits.get(ticket)) is not None and not waiting.done():
                waiting.set_result(None)
        if self._waits and (self.closing or not self.machine.hopeful()):
            for ticket, waiting in self._waits.items():
                if ticket.slot is None and not waiting.done():
                    waiting.set_exception(NotServing("what was being served has gone"))

    async def _wait(self, ticket: Ticket) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits[ticket] = future
        try:
            async with asyncio.timeout(self.config.limits.queue_ms_max / 1000):
                await future
        except TimeoutError:
            raise NotServing(f"no place was free within {self.config.limits.queue_ms_max} ms") from None
        finally:
            del self._waits[ticket]

    def _tell_quiet(self, slot: Slot) -> None:
        if not self.admission.running(slot):
            for waiting in self._quiet[slot]:
                if not waiting.done():
                    waiting.set_result(None)
