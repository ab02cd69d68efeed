"""Heartbeats: when to poll, what to send, what to forget once the fleet has it, and how to wait out an outage."""

from __future__ import annotations

from collections.abc import Callable

from drupelet import __version__
from drupelet.agent.effects import Ports
from drupelet.agent.model import DeviceState
from drupelet.core.errors import DrupeletError, NotAllowed, NotFound, Unavailable
from drupelet.wire.device_api import DeviceEvent, DeviceStatus, PollRequest
from drupelet.wire.orders import Order

WINDOWS_A_POLL = 200
EVENTS_A_POLL = 100
SOON_MS = 250
"""A device with news polls this soon instead of waiting for its turn, and with a backlog it goes on at this pace."""


class Backoff:
    """Waits that double up to a bound, each drawn from its upper half so that a fleet does not come back at once."""

    def __init__(self, *, first_ms: int, most_ms: int, jitter: Callable[[], float]) -> None:
        self._first_ms, self._most_ms, self._jitter = first_ms, most_ms, jitter
        self.failures = 0

    def failed(self) -> int:
        """Count a failure and return how long to wait, in milliseconds."""
        whole = min(self._most_ms, self._first_ms * 2 ** min(self.failures, 30))
        self.failures += 1
        return int(whole * (0.5 + self._jitter() / 2))

    def worked(self) -> None:
        """Start over."""
        self.failures = 0


class Heartbeat:
    """Polls when due. Every answer is bounded by the link; nothing here waits."""

    def __init__(self, ports: Ports, *, device: str, boot: str, poll_ms: int, backoff_ms_max: int) -> None:
        self._ports, self._device, self._boot = ports, device, boot
        self._poll_ms = poll_ms
        self._backoff = Backoff(first_ms=1_000, most_ms=backoff_ms_max, jitter=ports.jitter)
        self._due_ms = ports.clock.monotonic_ms()
        self._acked = 0
        self._told = 0
        self.answered_ms = 0
        """When the fleet last answered, by the device's clock; 0 for never."""
        self.taken = 0
        """The journal's sequence that the fleet knows; more than ours says that our journal was lost."""
        self.said = "not yet"
        """How the last poll went, for people."""

    @property
    def due_ms(self) -> int:
        """When the next poll is due, by the monotonic clock."""
        return self._due_ms

    def news(self, state: DeviceState) -> None:
        """Poll soon if there is an event that no poll has tried to tell; an outage's back-off stands."""
        newest = state.recent[-1].seq if state.recent else 0
        if newest > self._told and self._backoff.failures == 0:
            self._told = newest
            self._due_ms = min(self._due_ms, self._ports.clock.monotonic_ms() + SOON_MS)

    def poll(self, state: DeviceState, status: DeviceStatus) -> Order | None:
        """Send a heartbeat and return the newest order, verified. Raises `Untrusted` when metadata is refused.

        A fleet that is away, or has not let the device in, is no error: it is said in `said` and tried again later.
        """
        link = self._ports.link
        if link is None:
            self._due_ms += self._poll_ms
            return None
        events = self._events(state)
        windows = self._ports.spool.peek(WINDOWS_A_POLL)
        self._told = state.recent[-1].seq if state.recent else 0
        try:
            reply = link.poll(
                PollRequest(
                    device=self._device,
                    boot=self._boot,
                    agent_version=__version__,
                    hardware=self._ports.hardware,
                    status=status,
                    events=events,
                    windows=windows,
                )
            )
        except (Unavailable, NotAllowed) as error:
            self._wait(error)
            return None
        self.answered_ms = self._ports.clock.wall_ms()
        self._acked = max(self._acked, min(reply.events_taken, state.seq))
        self.taken = reply.events_taken
        if reply.windows_taken:
            self._ports.spool.ack(reply.windows_taken)
        backlog = len(windows) == WINDOWS_A_POLL or len(events) == EVENTS_A_POLL
        self._next(SOON_MS if backlog else reply.poll_after_ms)
        return self._director()

    def _director(self) -> Order | None:
        try:
            order = self._ports.trust.refresh_director()
        except (Unavailable, NotAllowed, NotFound) as error:
            self._wait(error)
            return None
        self._backoff.worked()
        self.said = "ok"
        return order

    def _events(self, state: DeviceState) -> tuple[DeviceEvent, ...]:
        return tuple(event for event in state.recent if event.seq > self._acked)[:EVENTS_A_POLL]

    def _next(self, after_ms: int) -> None:
        self._due_ms = self._ports.clock.monotonic_ms() + after_ms

    def _wait(self, error: DrupeletError) -> None:
        self.said = error.line()[:1000]
        self._next(self._backoff.failed())
