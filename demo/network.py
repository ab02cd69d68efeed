"""The network between devices and servers: it passes everything on until somebody owns it.

Every device reaches the fleet server and the depot through an address of its own here, so that an attack can be aimed
at one device. A rule sees a request and may answer in the server's place, alter the server's answer, or slow it down.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web

Side = Literal["fleet", "depot"]
CHUNK = 64 * 1024
# Not Content-Encoding: the server side here has already unpacked the body.
_PASSED_ON = ("Authorization", "Content-Type", "Range", "If-None-Match", "If-Range", "Accept")
_GIVEN_BACK = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Cache-Control", "Retry-After")


@dataclass(slots=True)
class Reply:
    """An answer on its way to a device. `length` is what the header claims; None claims nothing."""

    status: int
    headers: dict[str, str]
    body: AsyncIterator[bytes]
    length: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a device asked for."""

    device: str
    side: Side
    path: str


Rule = Callable[[Asked, Reply], Awaitable[Reply] | Reply]


@dataclass(slots=True)
class Network:
    """A forwarding server in a thread of its own."""

    upstreams: dict[Side, str]
    rules: dict[tuple[str, Side], Rule] = field(default_factory=dict)
    port: int = 0
    bytes_by_device: dict[tuple[str, str], int] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen on a free port."""
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        """Listen no more."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def url(self, device: str, side: Side) -> str:
        """The address a device is given."""
        return f"http://127.0.0.1:{self.port}/{device}/{side}"

    async def _serve(self) -> None:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{device}/{side}/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        async with aiohttp.ClientSession(auto_decompress=False) as self_session:
            app["session"] = self_session
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        device, path = request.match_info["device"], request.match_info["path"]
        side: Side = "fleet" if request.match_info["side"] == "fleet" else "depot"
        session: aiohttp.ClientSession = request.app["session"]
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            async with session.request(
                request.method, f"{self.upstreams[side]}/{path}", headers=headers, data=await request.read() or None
            ) as got:
                back = {name: got.headers[name] for name in _GIVEN_BACK if name in got.headers}
                reply = Reply(got.status, back, got.content.iter_chunked(CHUNK), got.content_length)
                rule = self.rules.get((device, side))
                if rule is not None:
                    altered = rule(Asked(device, side, path), reply)
                    reply = await altered if isinstance(altered, Awaitable) else altered
                return await self._send(request, reply, device, path)
        except aiohttp.ClientError:
            return web.Response(status=502, text="the server cannot be reached\n")

    async def _send(self, request: web.Request, reply: Reply, device: str, path: str) -> web.StreamResponse:
        answer = web.StreamResponse(status=reply.status, headers=reply.headers)
        if reply.length is not None:
            answer.content_length = reply.length
        await answer.prepare(request)
        key = (device, path)
        try:
            async for chunk in reply.body:
                self.bytes_by_device[key] = self.bytes_by_device.get(key, 0) + len(chunk)
                await answer.write(chunk)
            await answer.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            if request.transport is not None:
                request.transport.abort()
            raise
        return answer


async def once(data: bytes) -> AsyncIterator[bytes]:
    """A body of one piece."""
    yield data


def instead(data: bytes) -> Reply:
    """A whole answer in the server's place."""
    return Reply(200, {"Content-Type": "application/json"}, once(data), len(data))


async def slowed(body: AsyncIterator[bytes], *, bytes_per_s: float) -> AsyncIterator[bytes]:
    """A body at a given rate."""
    async for chunk in body:
        yield chunk
        await asyncio.sleep(len(chunk) / bytes_per_s)
