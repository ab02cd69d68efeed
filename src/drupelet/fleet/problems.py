"""Errors as HTTP answers: `{"what", "where", "fix"}` with a status, never a traceback."""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from drupelet.core.errors import (
    BadInput,
    Conflict,
    DrupeletError,
    NotAllowed,
    NotFound,
    Refused,
    Unavailable,
    Untrusted,
)
from drupelet.fleet.errors import BadToken, TooBusy
from drupelet.wire.codec import TooLarge

STATUS: tuple[tuple[type[DrupeletError], int], ...] = (
    (TooLarge, 413),
    (BadToken, 401),
    (TooBusy, 429),
    (BadInput, 400),
    (NotAllowed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Untrusted, 422),
    (Refused, 422),
    (Unavailable, 503),
)
"""The first that fits; anything else is 500, said in one sentence."""

RETRY_AFTER_S = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, where, and what to do. `reason` is the word of an untrusted thing's reason."""

    what: str
    where: str = ""
    fix: str = ""
    reason: str = ""


def status_of(error: DrupeletError) -> int:
    """Return the HTTP status that says this."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def answer(status: int, said: Problem) -> Response:
    """Return a problem as a response."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(said), status, headers=headers, media_type="application/problem+json")


async def problem(_request: Request, error: Exception) -> Response:
    """Answer a foreseen error."""
    if not isinstance(error, DrupeletError):
        return await unforeseen(_request, error)
    reason = getattr(error, "reason", None)
    word = str(reason.value) if reason is not None else ""
    return answer(status_of(error), Problem(what=error.what, where=error.where, fix=error.fix, reason=word))


async def unforeseen(request: Request, error: Exception) -> Response:
    """Answer an error nobody foresaw: the trace goes to the log, one sentence to the caller."""
    logging.getLogger("drupelet.fleet").error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(500, Problem(what="the server failed; its log says why", where=request.url.path))
