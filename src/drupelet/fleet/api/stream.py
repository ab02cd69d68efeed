"""Changes as server-sent events: `/api/v1/stream`. Each says what changed; who cares asks for it anew."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from drupelet.fleet.api.door import Door
from drupelet.fleet.changes import LISTENERS_MAX, Changes
from drupelet.fleet.credentials import Scope
from drupelet.fleet.errors import TooBusy

IDLE_S = 15.0
"""A comment is sent after this long without a change, so that dead connections are noticed."""


def router(door: Door, changes: Changes) -> APIRouter:
    """Return the route."""
    made = APIRouter()

    @made.get("/stream", tags=["overview"], summary="Changes as server-sent events", response_class=StreamingResponse)
    async def stream(request: Request) -> StreamingResponse:
        await door.bearer(request, Scope.READ)
        if changes.listeners >= LISTENERS_MAX:
            raise TooBusy(f"{LISTENERS_MAX} listen already", where="/api/v1/stream")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(changes), media_type="text/event-stream", headers=headers)

    return made


async def _events(changes: Changes) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\nevent: hello\ndata: {}\n\n"
    async for batch in changes.listen(idle_s=IDLE_S):
        if not batch:
            yield b": still here\n\n"
        for change in batch:
            yield b"event: " + change.kind.encode() + b"\ndata: " + msgspec.json.encode(change) + b"\n\n"
