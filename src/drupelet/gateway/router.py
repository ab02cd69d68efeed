"""Which slot a request goes to: pure.

A conversation stays on the slot where it began, as long as that slot may answer; a new one goes to the routed slot.
What is one conversation:

- the header `X-Conversation-Id`, if the client sends one: all requests with the same id;
- else, because chat requests carry their whole history: the same `user` field, system message and first user message,
  in a request that already holds an answer. A request without an earlier answer begins a conversation, however often
  the same question was asked before; otherwise a kiosk's fixed questions would never leave the slot they met first.

Keys are keyed hashes, so that nothing a user wrote is kept. The table is bounded: the least recently used
conversation is forgotten, and one that rested for long begins anew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from drupelet.core.names import Slot

CONVERSATIONS_MAX = 4_096
"""Conversations remembered: half a megabyte."""
IDLE_MS_MAX = 1_800_000
"""A conversation that rests for half an hour begins anew."""
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Conversation:
    """Whose turn this is. `begins`: nothing was answered in it yet, so it follows the route."""

    key: bytes
    begins: bool


def conversation(*, secret: bytes, header: str, user: str, opening: Sequence[bytes], answered: bool) -> Conversation:
    """Return whose conversation it is. `opening`: its system and first user message; `secret`: at most 64 bytes."""
    # What cannot be written as UTF-8 (a header of raw bytes) still names a conversation.
    parts = [b"id", _bytes(header)] if header else [b"text", _bytes(user), *opening]
    hashing = hashlib.blake2b(digest_size=_KEY_BYTES, key=secret)
    for part in parts:
        hashing.update(len(part).to_bytes(8, "big") + part)
    return Conversation(hashing.digest(), begins=not header and not answered)


class Router:
    """Remembers where conversations live."""

    def __init__(self, *, conversations_max: int = CONVERSATIONS_MAX, idle_ms_max: int = IDLE_MS_MAX) -> None:
        self._conversations_max = conversations_max
        self._idle_ms_max = idle_ms_max
        self._homes: OrderedDict[bytes, tuple[Slot, int]] = OrderedDict()
        self._closed: set[Slot] = set()

    def __len__(self) -> int:
        return len(self._homes)

    def choose(self, asked: Conversation, *, routed: Slot | None, usable: frozenset[Slot], now_ms: int) -> Slot | None:
        """Return the slot for a request that arrived now, None when no slot may answer."""
        if not asked.begins:
            home = self._homes.get(asked.key)
            if home is not None and now_ms - home[1] <= self._idle_ms_max:
                open_ = home[0] not in self._closed or home[0] is routed
                if home[0] in usable and open_:
                    return home[0]
        if routed in usable:
            return routed
        return min(usable, key=lambda slot: slot.value, default=None)

    def bind(self, asked: Conversation, slot: Slot, *, now_ms: int) -> None:
        """Remember that the conversation lives on `slot`."""
        self._homes[asked.key] = (slot, now_ms)
        self._homes.move_to_end(asked.key)
        while len(self._homes) > self._conversations_max:
            self._homes.popitem(last=False)

    def close(self, slot: Slot) -> None:
        """Let conversations leave `slot`, which is being drained, unless it is the routed one."""
        self._closed.add(slot)

    def reopen(self, slot: Slot) -> None:
        """Undo `close`: the slot was routed to, or loaded anew."""
        self._closed.discard(slot)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
