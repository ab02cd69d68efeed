"""Asking a child over its Unix socket, and reading the little that must be known of its answer.

Chunks pass through as they come: the gateway looks for two marks only, the first piece of text and the `timings` that
llama.cpp puts at the end of every answer (prompt and answer tokens, decode time), and parses nothing else.

Each request has its own connection. llama.cpp's server closes a connection after a stream without saying so, which
breaks the next request on it, and holds one of its few threads for every idle one; a connection to a Unix socket takes
about 0.1 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from drupelet.gateway.errors import ChildGone

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""A whole answer larger than this is not one."""
READ_BYTES = 64 * 1024
_CLOSE_S_MAX = 5.0
"""The kernel closes a dead child's connections at once."""
TAIL_BYTES = 4_096
"""The last event of a stream is about 600 bytes."""
_TEXT_MARKS = (b'"content":"', b'"tool_calls":[', b'"reasoning_content":"')
_TIMINGS = b'"timings":'
GONE = (aiohttp.ClientError, ConnectionError)
"""What a child that dies under a request looks like from here."""


class Timings(msgspec.Struct, frozen=True):
    """What the child counted. `cache_n` prompt tokens came from its cache; `predicted_ms` leaves out the prompt."""

    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0
    predicted_ms: float = 0.0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return max(0, self.prompt_n) + max(0, self.cache_n)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer."""
        return max(0, self.predicted_n)

    @property
    def decode_s(self) -> float:
        """Seconds the answer's tokens took."""
        return max(0.0, self.predicted_ms) / 1000


_DECODER = msgspec.json.Decoder(Timings)


def timings_in(tail: bytes) -> Timings | None:
    """Return the last timings in the end of an answer, None if there are none. Text cannot forge them: its quotes
    are escaped."""
    at = tail.rfind(_TIMINGS)
    if at < 0:
        return None
    start = at + len(_TIMINGS)
    end = tail.find(b"}", start)
    try:
        return _DECODER.decode(tail[start : end + 1])
    except msgspec.DecodeError:
        return None


@dataclass(slots=True)
class Reading:
    """What was seen of an answer that passes through. Feed it every chunk."""

    first: bool = False
    """Some text has come."""
    _before: bytes = b""
    _last: bytes = b""

    def feed(self, chunk: bytes) -> bool:
        """Look at a chunk; returns True for the one with the first text."""
        self._before, self._last = self._last, chunk
        if self.first:
            return False
        self.first = any(mark in chunk for mark in _TEXT_MARKS)
        return self.first

    def timings(self) -> Timings | None:
        """Return the child's counts, once the answer is whole."""
        return timings_in((self._before + self._last)[-TAIL_BYTES:])


class Upstream:
    """One child's HTTP side."""

    def __init__(self, socket: Path) -> None:
        connector = aiohttp.UnixConnector(path=str(socket), force_close=True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, connect=10.0),
        )
        self._asked = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def chat(self, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a completion; leaving the context early takes the question back. Raises those in `GONE`."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._asked += 1
        self._quiet.clear()
        try:
            async with self._session.post("http://engine/v1/chat/completions", data=body, headers=headers) as answer:
                yield answer
        finally:
            self._asked -= 1
            if not self._asked:
                self._quiet.set()

    async def close(self) -> None:
        """Close what is open, after those who ask have noticed that the child is gone.

        Closing aiohttp's session under a reader would leave the reader waiting for ever.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S_MAX):
                await self._quiet.wait()
        await self._session.close()


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body, or raise `ChildGone` if it is larger than any answer."""
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > ANSWER_BYTES_MAX:
            raise ChildGone(f"the child's answer has more than {ANSWER_BYTES_MAX} bytes")
    return bytes(data)
