"""Who may come in, and how bodies are read and answers written: the same for every route.

A token comes as `Authorization: Bearer`, or in the cookie that the pages set. The cookie is believed for reading, and
for anything else only if the browser says that the request comes from our own pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from drupelet.fleet.credentials import Scope
from drupelet.fleet.errors import BadToken, NoPermission
from drupelet.fleet.tokens import Bearer, Tokens
from drupelet.wire.codec import Malformed, TooLarge, decode_as

BODY_BYTES_MAX = 128 * 1024
COOKIE = "drupelet_token"
ANONYMOUS = Bearer("anonymous", frozenset({Scope.READ}))

B = TypeVar("B", bound=msgspec.Struct)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Door:
    """Checks tokens. `anonymous_read`: without a token one may read (a demonstration on one machine)."""

    tokens: Tokens
    anonymous_read: bool = False

    async def bearer(self, request: Request, scope: Scope) -> Bearer:
        """Return who asks, or raise `BadToken` or `NoPermission`."""
        secret = self._secret(request)
        if not secret:
            if self.anonymous_read and scope is Scope.READ:
                return ANONYMOUS
            raise BadToken("a token is needed", where=request.url.path, fix="send Authorization: Bearer <token>")
        bearer = await run_in_threadpool(self.tokens.bearer, secret)
        bearer.require(scope)
        return bearer

    def _secret(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        secret = request.cookies.get(COOKIE, "")
        if secret and request.method not in ("GET", "HEAD") and not _from_our_pages(request):
            raise NoPermission("the request does not come from this server's pages", where=request.url.path)
        return secret


def _from_our_pages(request: Request) -> bool:
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")


async def body(request: Request, kind: type[B]) -> B:
    """Return the request's body, bounded, decoded and checked."""
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > BODY_BYTES_MAX:
                raise TooLarge(f"more than {BODY_BYTES_MAX} bytes", where=request.url.path)
    except ClientDisconnect as error:
        raise Malformed("the body was cut short", where=request.url.path) from error
    return decode_as(kind, bytes(data) or b"{}", where=request.url.path)


def said(value: Any, status: int = 200) -> Response:
    """Return a view as a response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run something that waits for the database beside the event loop."""
    return await run_in_threadpool(call, *args, **kwargs)


Handler = Callable[..., Awaitable[Response]]


def documented(view: Any = None, *, asked: type[msgspec.Struct] | None = None, status: int = 200) -> dict[str, Any]:
    """Return FastAPI's route arguments that put our shapes into the OpenAPI document."""
    extra: dict[str, Any] = {}
    if asked is not None:
        extra["requestBody"] = {"content": {"application/json": {"schema": schema(asked)}}, "required": True}
    responses: dict[int | str, dict[str, Any]] = {}
    if view is not None:
        responses[status] = {"description": "Done.", "content": {"application/json": {"schema": schema(view)}}}
    return {
        "openapi_extra": extra,
        "responses": responses,
        "status_code": status,
        "response_class": Response,
        "response_model": None,
    }


@cache
def schema(kind: Any) -> dict[str, Any]:
    """Return a shape's JSON schema with its parts inlined by reference to itself."""
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    _COMPONENTS.update(parts)
    return dict(top)


_COMPONENTS: dict[str, Any] = {}


def components() -> dict[str, Any]:
    """Return every part that the documented shapes refer to."""
    return dict(_COMPONENTS)
