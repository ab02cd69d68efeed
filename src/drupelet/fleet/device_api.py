"""The devices' side of the server: Starlette routes with msgspec, under `/device/v1` (docs/formats/device-api.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from drupelet.core.errors import DrupeletError
from drupelet.fleet.credentials import Badges
from drupelet.fleet.director import Desk
from drupelet.fleet.enrolment import Enrolment, Throttle
from drupelet.fleet.errors import BadToken, NoPermission
from drupelet.fleet.intake import Intake
from drupelet.fleet.problems import problem
from drupelet.wire.codec import Malformed, Message, TooLarge, decode, decode_as, inflate
from drupelet.wire.device_api import ChallengeRequest, EnrolRequest, PollRequest, TokenRequest

M = TypeVar("M", bound=Message)
JSON = "application/json"


class DeviceApi:
    """Routes and what they need."""

    def __init__(
        self, *, badges: Badges, enrolment: Enrolment, throttle: Throttle, intake: Intake, desk: Desk,
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self._badges = badges
        self._enrolment = enrolment
        self._throttle = throttle
        self._intake = intake
        self._desk = desk
        self._clock = clock

    def app(self) -> Starlette:
        """Return the routes, to be mounted at `/device/v1`. The application above owns every resource."""
        return Starlette(
            routes=[
                Route("/poll", self._poll, methods=["POST"]),
                Route("/enrol", self._enrol, methods=["POST"]),
                Route("/challenge", self._challenge, methods=["POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/director/{device}/{name}", self._director, methods=["GET"]),
            ],
            exception_handlers={DrupeletError: problem},
        )

    async def _poll(self, request: Request) -> Response:
        device = self._who(request)
        message = _decoded(await _body(request, PollRequest))
        if message.device != device:
            raise NoPermission(f"the token of {device} is no token of {message.device}")
        return _answer(await self._intake.poll(message))

    async def _enrol(self, request: Request) -> Response:
        message = decode(EnrolRequest, await self._before_approval(request, EnrolRequest), where="enrol")
        return _answer(await run_in_threadpool(self._enrolment.enrol, message, address=_address(request)))

    async def _challenge(self, request: Request) -> Response:
        message = decode(ChallengeRequest, await self._before_approval(request, ChallengeRequest), where="challenge")
        return _answer(self._enrolment.challenge(message.device))

    async def _token(self, request: Request) -> Response:
        message = decode(TokenRequest, await self._before_approval(request, TokenRequest), where="token")
        return _answer(await run_in_threadpool(self._enrolment.token, message))

    async def _director(self, request: Request) -> Response:
        device = self._who(request)
        if request.path_params["device"] != device:
            raise NoPermission(f"the token of {device} reads its own orders only")
        body = await run_in_threadpool(self._desk.file, device, request.path_params["name"])
        return Response(body, media_type=JSON, headers={"Cache-Control": "no-store"})

    async def _before_approval(self, request: Request, kind: type[Message]) -> bytes:
        self._throttle.take(_address(request), now_ms=self._clock())
        return await _body(request, kind)

    def _who(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise BadToken("a bearer token is needed", fix="prove the device's key at /device/v1/token")
        return self._badges.device(token.strip(), now_ms=self._clock())


def _decoded(data: bytes) -> PollRequest:
    """Return the poll, read once: whatever is wrong with it is said by the full check."""
    message = decode_as(PollRequest, data, where="poll")
    return message if message.format == PollRequest.FORMAT else decode(PollRequest, data, where="poll")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _answer(message: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(message), media_type=JSON)


async def _body(request: Request, kind: type[Message]) -> bytes:
    """Return the body, unpacked, never holding more than the message may have."""
    packed = request.headers.get("content-encoding", "identity").lower()
    if packed not in ("identity", "deflate"):
        raise Malformed(f"content encoding {packed[:40]!r} is not understood", fix="use deflate or none")
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > kind.BYTES_MAX:
                raise TooLarge(f"more than {kind.BYTES_MAX} bytes", where=request.url.path)
    except ClientDisconnect as error:
        raise Malformed("the body was cut short", where=request.url.path) from error
    body = bytes(data)
    return inflate(body, bytes_max=kind.BYTES_MAX, where=request.url.path) if packed == "deflate" else body
