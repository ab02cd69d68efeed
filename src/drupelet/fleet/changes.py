"""Who listens for changes: pages and programs that would otherwise poll. Tells *what* changed, never how.

Publishing is cheap and never waits: changes are collected in a set and handed out together a moment later, so that a
burst of polls is one message. A listener that does not read gets `everything` once it does: it then asks anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

GATHER_S = 0.2
"""How long changes are collected before they are handed out."""
LISTENERS_MAX = 200
KEYS_MAX = 200
"""More different things at once than this are told as `everything`."""
QUEUE_MAX = 16


class Change(msgspec.Struct, frozen=True):
    """Something changed: `device`, `rollout`, `release`, `audit` or `everything`, and its id."""

    kind: str
    key: str = ""


class Changes:
    """A hub of changes. `publish` may be called from any thread; everything else belongs to the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[Change] = set()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: set[asyncio.Queue[tuple[Change, ...]]] = set()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say on which loop the listeners live."""
        self._loop = loop

    def unbind(self) -> None:
        """Let go of the loop; every listener ends."""
        self._loop = None
        for queue in list(self._queues):
            _offer(queue, ())

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._queues)

    def publish(self, kind: str, *keys: str) -> None:
        """Tell that these things changed."""
        if self._loop is None or not self._queues:
            return
        with self._lock:
            self._pending.update(Change(kind, key) for key in keys or ("",))
            if self._scheduled:
                return
            self._scheduled = True
        with suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._later)

    def _later(self) -> None:
        asyncio.get_running_loop().call_later(GATHER_S, self._hand_out)

    def _hand_out(self) -> None:
        with self._lock:
            pending, self._pending, self._scheduled = self._pending, set(), False
        batch = tuple(sorted(pending, key=lambda c: (c.kind, c.key)))
        if len(batch) > KEYS_MAX:
            batch = (Change("everything"),)
        for queue in self._queues:
            _offer(queue, batch)

    async def listen(self, *, idle_s: float) -> AsyncIterator[tuple[Change, ...]]:
        """Yield batches of changes; an empty one after `idle_s` without any, so that the caller can show it lives."""
        queue: asyncio.Queue[tuple[Change, ...]] = asyncio.Queue(QUEUE_MAX)
        self._queues.add(queue)
        try:
            while self._loop is not None:
                try:
                    yield await asyncio.wait_for(queue.get(), idle_s)
                except TimeoutError:
                    yield ()
        finally:
            self._queues.discard(queue)


def _offer(queue: asyncio.Queue[tuple[Change, ...]], batch: tuple[Change, ...]) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        batch = (Change("everything"),)
    queue.put_nowait(batch)
