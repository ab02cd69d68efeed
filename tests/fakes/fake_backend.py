"""A stand-in for inference children: an OpenAI-like server on a Unix socket, inside the test's own event loop.

It answers with numbered words, holds back when it is told to, breaks off, and dies; nothing is waited for by the clock.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from drupelet.core.states import ExitReason
from drupelet.engine.spec import ChildSpec, Exit, StartFailed
from drupelet.gateway.effects import RunningChild

PROMPT_TOKENS = 7


@dataclass(frozen=True, slots=True)
class FakeAddress:
    """Where it answers."""

    socket: Path


@dataclass(slots=True)
class Manners:
    """How a fake child behaves; change it while it runs."""

    words: int = 4
    hold_before: int | None = None
    """Before this word it waits for `go`; 0 holds back the whole answer."""
    die_before: int | None = None
    """Before this word it dies."""
    padding: int = 0
    """Characters added to every word."""
    status: int = 200
    error_type: str = "server_error"
    go: asyncio.Event = field(default_factory=asyncio.Event)


class FakeChild:
    """Implements `RunningChild`."""

    def __init__(self, spec: ChildSpec, manners: Manners, socket: Path) -> None:
        self.spec = spec
        self.manners = manners
        self.address = FakeAddress(socket)
        self.bodies: list[dict[str, Any]] = []
        """What it was asked, as decoded JSON."""
        self.cut_off = 0
        """Answers that the asker did not wait for."""
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._runner: web.AppRunner | None = None

    async def listen(self) -> None:
        """Open the socket."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.address.socket)).start()

    def rss_bytes(self) -> int:
        return 0 if self._ended.done() else 50 << 20

    def rss_bytes_peak(self) -> int:
        return 0 if self._ended.done() else 60 << 20

    async def wait(self) -> Exit:
        return await asyncio.shield(self._ended)

    async def stop(self) -> Exit:
        await self.die(ExitReason.STOPPED)
        return await self.wait()

    async def die(self, reason: ExitReason = ExitReason.SIGNALLED) -> None:
        """End, breaking every connection."""
        if not self._ended.done():
            self._ended.set_result(Exit(reason=reason, words=f"fake {reason.value}"))
            if self._runner is not None and self._runner.server is not None:
                for connection in self._runner.server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
                await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.cut_off += 1
            raise

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        manners = self.manners
        if manners.status != 200:
            error = {"error": {"code": manners.status, "message": "the fake says no", "type": manners.error_type}}
            return web.json_response(error, status=manners.status)
        words = [f"w{i} " + "x" * manners.padding for i in range(manners.words)]
        timings = {"cache_n": 2, "prompt_n": PROMPT_TOKENS - 2, "predicted_n": len(words), "predicted_ms": 10.0}
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        for number, word in enumerate(words):
            if manners.hold_before == number:
                await manners.go.wait()
            if manners.die_before == number:
                await asyncio.shield(asyncio.ensure_future(self.die()))
            if body.get("stream"):
                if number == 0:
                    await stream.prepare(request)
                    await stream.write(_event({"choices": [{"delta": {"role": "assistant", "content": None}}]}))
                await stream.write(_event({"choices": [{"delta": {"content": word}}]}))
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            return web.json_response({"choices": [{"message": message}], "timings": timings})
        last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": timings}
        await stream.write(_event(last) + b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream


class FakeLauncher:
    """Implements `Launch`. `refusals` maps a model path to why it does not start; `hold` keeps starts from ending."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[FakeChild] = []
        self.manners: dict[str, Manners] = {}
        """By model path; a child started later behaves alike."""
        self.refusals: dict[str, ExitReason] = {}
        self.hold: asyncio.Event | None = None

    async def __call__(self, spec: ChildSpec) -> RunningChild:
        if self.hold is not None:
            await self.hold.wait()
        if (reason := self.refusals.get(str(spec.model))) is not None:
            raise StartFailed(Exit(reason=reason, words="fake refusal"), where=str(spec.model))
        manners = self.manners.setdefault(str(spec.model), Manners())
        child = FakeChild(spec, manners, self.folder / f"f{len(self.children)}.sock")
        await child.listen()
        self.children.append(child)
        return child


def _event(value: dict[str, Any]) -> bytes:
    # Compact, as llama.cpp writes it: the gateway looks for marks in the bytes.
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
