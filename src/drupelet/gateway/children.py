"""Starts, watches and stops the children that the machine asks for, and tells it what became of them.

The bytes are hashed by the child itself, on the very file it then loads from; only when a load fails are they hashed
here as well, to tell a damaged file from a model that cannot run. `engine.Child` kills hung and greedy children.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import DrupeletError
from drupelet.core.names import Digest, Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.engine.spec import ChildSpec, StartFailed
from drupelet.gateway.config import ChildSettings
from drupelet.gateway.effects import CheckDigest, Launch, RunningChild
from drupelet.gateway.machine import Died, Event, Rest, Rested, StartChild, Started, StopChild
from drupelet.gateway.machine import StartFailed as StartDidFail
from drupelet.gateway.upstream import Upstream
from drupelet.telemetry.windows import Serving
from drupelet.wire.control import Load

_log = logging.getLogger("drupelet.gateway.children")

_REASONS = {
    ExitReason.OOM_KILLED: Reason.MEMORY_EXCEEDED,
    ExitReason.HUNG: Reason.TOO_SLOW,
    ExitReason.STOPPED: Reason.INTERRUPTED,
}


@dataclass(slots=True, eq=False)
class Running:
    """A ready child with what was loaded into it."""

    load: Load
    turn: int
    child: RunningChild
    upstream: Upstream
    serving: Serving
    since_s: int
    """Unix time at which it became ready."""
    gone: asyncio.Event
    """Set after the machine was told of its end."""


def serving_of(load: Load) -> Serving:
    """Return whose measurements a load's are."""
    return Serving(slot=load.slot, release=load.release, manifest=load.manifest, variant=load.variant)


class Children:
    """The adapter behind `StartChild`, `StopChild` and `Rest`. Used from one event loop, from the main thread."""

    def __init__(
        self, *, launch: Launch, check: CheckDigest, settings: ChildSettings, post: Callable[[Event], None]
    ) -> None:
        self._launch = launch
        self._check = check
        self._settings = settings
        self._post = post
        self._closed = False
        self._running: dict[Slot, Running] = {}
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[object]] = set()

    def get(self, slot: Slot) -> Running | None:
        """Return the slot's child if it is ready."""
        return self._running.get(slot)

    def start(self, effect: StartChild) -> None:
        """Begin starting a child, unless all are being ended."""
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._live(effect), name=f"child {effect.slot.value}")
        self._tasks[effect.slot] = task

    def stop(self, effect: StopChild) -> None:
        """Begin ending a child or its start."""
        running = self._running.get(effect.slot)
        if running is None:
            self._tasks[effect.slot].cancel()
            return
        self._background(running.child.stop())

    def rest(self, effect: Rest) -> None:
        """Say `Rested` later: the rest doubles with each failure."""
        loop = asyncio.get_running_loop()
        loop.call_later(self.rest_ms(effect.failures) / 1000, self._post, Rested(effect.slot, effect.turn))

    def rest_ms(self, failures: int) -> int:
        """Return the rest after so many failures in a row, in milliseconds."""
        doubled = self._settings.restart_ms_min << min(failures - 1, 32)
        return min(doubled, self._settings.restart_ms_max)

    async def close(self) -> None:
        """End everything, now."""
        # A child that is ended now is reported like any other; it must not be started again for that.
        self._closed = True
        tasks = list(self._tasks.values())
        for running in list(self._running.values()):
            await running.child.stop()
        for task in tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(asyncio.gather(task, return_exceptions=True))
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)

    def _background(self, work: Coroutine[object, object, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _spec(self, load: Load) -> ChildSpec:
        settings = self._settings
        return ChildSpec(
            model=Path(load.path),
            alias=load.model,
            context_tokens=min(settings.context_tokens or load.context_tokens, load.context_tokens),
            parallel=settings.parallel,
            threads=settings.threads,
            memory_bytes_max=load.memory_bytes_max or None,
            digest=Digest.parse(load.digest),
            nice=settings.nice,
            start_ms_max=load.load_ms_max,
            health_ms_max=settings.health_ms_max,
        )

    async def _live(self, effect: StartChild) -> None:
        """One child from its start to its end, told to the machine."""
        slot, turn, load = effect.slot, effect.turn, effect.load
        begun = time.monotonic()
        try:
            child = await self._launch(self._spec(load))
        except asyncio.CancelledError:
            self._post(StartDidFail(slot, turn, Reason.INTERRUPTED, ExitReason.STOPPED, "its start was given up"))
            raise
        except DrupeletError as error:
            self._post(await self._failure(slot, turn, load, error))
            return
        ready = time.monotonic()
        running = Running(
            load=load,
            turn=turn,
            child=child,
            upstream=Upstream(child.address.socket),
            serving=serving_of(load),
            since_s=int(time.time()),
            gone=asyncio.Event(),
        )
        self._running[slot] = running
        self._post(Started(slot, turn, int((ready - begun) * 1000), child.rss_bytes()))
        try:
            ended = await child.wait()
        except asyncio.CancelledError:
            await child.stop()
            raise
        finally:
            del self._running[slot]
        stable = (time.monotonic() - ready) * 1000 >= self._settings.stable_ms
        _log.info("child in slot %s ended: %s (%s)", slot.value, ended.reason.value, ended.words)
        self._post(Died(slot, turn, ended.reason, ended.words, stable=stable))
        running.gone.set()
        self._background(running.upstream.close())

    async def _failure(self, slot: Slot, turn: int, load: Load, error: DrupeletError) -> StartDidFail:
        if not isinstance(error, StartFailed):
            return StartDidFail(slot, turn, Reason.LOAD_FAILED, ExitReason.LOAD_FAILED, error.line())
        reason = _REASONS.get(error.reason, Reason.LOAD_FAILED)
        words = error.exit.words
        if error.reason is ExitReason.LOAD_FAILED and (damage := await self._check(load)):
            reason, words = Reason.DIGEST_MISMATCH, damage
        _log.warning("slot %s: %s was not loaded: %s", slot.value, load.release, words)
        return StartDidFail(slot, turn, reason, error.reason, words)
