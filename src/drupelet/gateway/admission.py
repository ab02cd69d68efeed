"""Who is served now, who waits and who is turned away: pure.

A child answers `parallel` requests at once; more would only share its time and make all of them slow. The others wait
in one bounded line, first come first served within a slot: a request for a slot that has room passes one whose slot
is busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from drupelet.core.names import Slot
from drupelet.gateway.router import Conversation

QUEUE_MAX = 32
"""Requests that may wait. At 9 tokens/s (a 1B model on a Pi 5) a place is worth some 10 seconds: more is no service."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place. `slot` is set while it is being served."""

    conversation: Conversation
    slot: Slot | None = None


class Admission:
    """The line and the places. All methods return at once."""

    def __init__(self, *, queue_max: int = QUEUE_MAX, parallel: int = 1) -> None:
        self._queue_max = queue_max
        self._parallel = parallel
        self._line: deque[Ticket] = deque()
        self._running = dict.fromkeys(Slot, 0)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    def running(self, slot: Slot | None = None) -> int:
        """Requests being served, on `slot` or on both."""
        return self._running[slot] if slot is not None else sum(self._running.values())

    def join(self, ticket: Ticket, *, in_front: bool = False) -> None:
        """Put a ticket in line; `in_front` is for one whose child died: it has waited already."""
        (self._line.appendleft if in_front else self._line.append)(ticket)

    def overfull(self) -> bool:
        """Whether more wait than may. Ask after `pump`, so that one who need not wait is never turned away."""
        return len(self._line) > self._queue_max

    def pump(self, choose: Callable[[Conversation], Slot | None]) -> list[Ticket]:
        """Return the tickets to be served now, their slot set."""
        admitted: list[Ticket] = []
        if not self._line:
            return admitted
        kept: deque[Ticket] = deque()
        for ticket in self._line:
            slot = choose(ticket.conversation)
            if slot is None or self._running[slot] >= self._parallel:
                kept.append(ticket)
                continue
            ticket.slot = slot
            self._running[slot] += 1
            admitted.append(ticket)
        self._line = kept
        return admitted

    def leave(self, ticket: Ticket) -> None:
        """Give up the ticket's place, whether it waited or was served. Harmless a second time."""
        if ticket.slot is not None:
            self._running[ticket.slot] -= 1
            ticket.slot = None
        elif ticket in self._line:
            self._line.remove(ticket)
