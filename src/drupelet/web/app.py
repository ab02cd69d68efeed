"""The pages' routes. Reading needs the scope read (unless the server lets anybody read), steering the scope operate."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from drupelet.core.errors import DrupeletError
from drupelet.core.names import ReleaseId
from drupelet.fleet.api.door import ANONYMOUS
from drupelet.fleet.api.routes import Desks
from drupelet.fleet.credentials import Scope
from drupelet.fleet.errors import BadToken, NoSuch
from drupelet.fleet.machine import OPERATOR_EVENTS, Event
from drupelet.fleet.problems import Problem, answer, status_of
from drupelet.fleet.tokens import Bearer
from drupelet.web.assets import asset
from drupelet.web.chart import evidence_chart
from drupelet.web.render import HEADERS, SANDBOX_HEADERS, page
from drupelet.web.session import (
    TOKEN_LENGTH_MAX,
    forget,
    form,
    form_word,
    remember,
    require_own_form,
    require_own_page,
    safe_next,
)

FOR_EVER = "public, max-age=31536000, immutable"
LISTED = 200
NUMBER_MAX = 2**53
NOT_OURS = ("/api/", "/device/", "/openapi.json")
"""Addresses whose callers want a problem as JSON, not a page."""

Handler = Callable[[Request], Awaitable[Response]]


def pages(desks: Desks, *, clock: Callable[[], int]) -> Starlette:
    """Return the pages as an application to be mounted at `/`, last. `clock` gives Unix milliseconds."""
    return _Pages(desks, clock).app()


class _Pages:
    """Handlers and what they ask."""

    def __init__(self, desks: Desks, clock: Callable[[], int]) -> None:
        self.desks = desks
        self.reader = desks.reader
        self.clock = clock

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._overview),
                Route("/devices", self._devices),
                Route("/devices/{device}", self._device),
                Route("/devices/{device}/{verb}", self._decide, methods=["POST"]),
                Route("/rollouts", self._rollouts),
                Route("/rollouts/{number:int}", self._rollout),
                Route("/rollouts/{number:int}/{verb}", self._steer, methods=["POST"]),
                Route("/releases", self._releases),
                Route("/releases/{family}/{version}", self._release),
                Route("/releases/{family}/{version}/report", self._report),
                Route("/audit", self._audit),
                Route("/sign-in", self._sign_in),
                Route("/sign-in", self._signed_in, methods=["POST"]),
                Route("/sign-out", self._sign_out, methods=["POST"]),
                Route("/assets/{digest}/{name}", _asset),
            ],
            exception_handlers={
                DrupeletError: self._failed,
                HTTPException: self._http,
                Exception: self._unforeseen,
            },
        )

    async def _overview(self, request: Request) -> Response:
        who = await self._reads(request)
        shown = await run_in_threadpool(self.reader.overview)
        return self._page(request, "overview.html", who, shown=shown)

    async def _devices(self, request: Request) -> Response:
        who = await self._reads(request)
        selector, after = (request.query_params.get(key, "")[:1000] for key in ("selector", "after"))
        problem, listed = "", None
        try:
            listed = await run_in_threadpool(self.reader.devices, selector=selector, after=after, limit=LISTED)
        except DrupeletError as error:
            problem = error.line()
        return self._page(
            request, "devices.html", who, status=400 if problem else 200, listed=listed, selector=selector,
            problem=problem,
        )  # fmt: skip

    async def _device(self, request: Request) -> Response:
        who = await self._reads(request)
        shown = await run_in_threadpool(self.reader.device, request.path_params["device"][:64])
        return self._page(request, "device.html", who, shown=shown)

    async def _decide(self, request: Request) -> Response:
        device, verb = request.path_params["device"][:64], request.path_params["verb"]
        if verb not in ("approve", "reject"):
            raise HTTPException(404)
        who, fields = await self._steers(request)
        await run_in_threadpool(
            self.desks.devices.decide, device, approve=verb == "approve", by=who.name,
            reason=fields.get("reason", "")[:1000],
        )  # fmt: skip
        self.desks.wake()
        return _see(f"/devices/{quote(device)}")

    async def _rollouts(self, request: Request) -> Response:
        who = await self._reads(request)
        shown = await run_in_threadpool(self.reader.rollouts, before=_before(request), limit=50)
        return self._page(request, "rollouts.html", who, listed=shown)

    async def _rollout(self, request: Request) -> Response:
        who = await self._reads(request)
        shown = await run_in_threadpool(self.reader.rollout, _number(request))
        return self._page(request, "rollout.html", who, shown=shown, chart=evidence_chart(shown))

    async def _steer(self, request: Request) -> Response:
        event = next((e for e in OPERATOR_EVENTS if e.value == request.path_params["verb"]), None)
        if event is None:
            raise HTTPException(404)
        number = _number(request)
        who, fields = await self._steers(request)
        await run_in_threadpool(self._command, number, event, who.name, fields.get("reason", "")[:1000])
        self.desks.wake()
        return _see(f"/rollouts/{number}")

    def _command(self, number: int, event: Event, by: str, reason: str) -> None:
        self.desks.rollouts.command(number, event, by=by, reason=reason)

    async def _releases(self, request: Request) -> Response:
        who = await self._reads(request)
        return self._page(request, "releases.html", who, listed=await run_in_threadpool(self.reader.releases))

    async def _release(self, request: Request) -> Response:
        who = await self._reads(request)
        name = ReleaseId.parse(f"{request.path_params['family']}/{request.path_params['version']}").path
        shown = await run_in_threadpool(self.reader.release, name)
        manifest = await run_in_threadpool(self.reader.manifest, name)
        return self._page(request, "release.html", who, shown=shown, manifest=manifest)

    async def _report(self, request: Request) -> Response:
        """The evaluation's page, as the forge wrote it. Its scripts run, in an origin of their own that can reach
        nothing: it was signed, but prompts and answers are in it.
        """
        await self._reads(request)
        name = ReleaseId.parse(f"{request.path_params['family']}/{request.path_params['version']}").path
        manifest = await run_in_threadpool(self.reader.manifest, name)
        digest, data = await run_in_threadpool(self.desks.releases.attached, manifest, "report-page")
        headers = {**SANDBOX_HEADERS, "Cache-Control": "private, max-age=3600", "ETag": f'"{digest.hex}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="text/html; charset=utf-8", headers=headers)

    async def _audit(self, request: Request) -> Response:
        who = await self._reads(request)
        subject = request.query_params.get("subject", "")[:128]
        listed = await run_in_threadpool(self.reader.audit, subject=subject, before=_before(request), limit=100)
        return self._page(request, "audit.html", who, listed=listed, subject=subject)

    async def _sign_in(self, request: Request) -> Response:
        wanted = safe_next(request.query_params.get("next", "/"))
        return self._page(request, "signin.html", ANONYMOUS, wanted=wanted, problem="")

    async def _signed_in(self, request: Request) -> Response:
        require_own_page(request)
        fields = await form(request)
        wanted, token = safe_next(fields.get("next", "/")), fields.get("token", "").strip()
        try:
            if not token or len(token) > TOKEN_LENGTH_MAX or not token.isascii() or not token.isprintable():
                raise BadToken("that is not a token", fix="paste one made with: drupelet fleet token create")
            bearer = await run_in_threadpool(self.desks.door.tokens.bearer, token)
            bearer.require(Scope.READ)
        except DrupeletError as error:
            return self._page(
                request, "signin.html", ANONYMOUS, status=status_of(error), wanted=wanted, problem=error.line()
            )
        response = _see(wanted)
        remember(request, response, token)
        return response

    async def _sign_out(self, request: Request) -> Response:
        require_own_form(request, await form(request))
        response = _see("/sign-in")
        forget(response)
        return response

    async def _reads(self, request: Request) -> Bearer:
        return await self.desks.door.bearer(request, Scope.READ)

    async def _steers(self, request: Request) -> tuple[Bearer, dict[str, str]]:
        fields = await form(request)
        require_own_form(request, fields)
        return await self.desks.door.bearer(request, Scope.OPERATE), fields

    def _page(self, request: Request, template: str, who: Bearer, *, status: int = 200, **values: Any) -> Response:
        operates = bool(who.scopes & {Scope.OPERATE, Scope.ADMIN})
        return page(
            template, now=self.clock(), status=status, who=None if who is ANONYMOUS else who.name, operates=operates,
            word=form_word(request), path=request.url.path, **values,
        )  # fmt: skip

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, DrupeletError)  # noqa: S101  (registered for that family only)
        if isinstance(error, BadToken) and request.method == "GET":
            where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            response = _see(f"/sign-in?next={quote(where, safe='/')}")
            forget(response)
            return response
        return self._error(request, status_of(error), error.what, fix=error.fix)

    async def _http(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = {404: "There is no such page.", 405: "That cannot be done here."}.get(status, "That did not work.")
        return self._error(request, status, what, fix="")

    async def _unforeseen(self, request: Request, error: Exception) -> Response:
        logging.getLogger("drupelet.web").error("%s %s failed", request.method, request.url.path, exc_info=error)
        return self._error(request, 500, "The server failed; its log says why.", fix="")

    def _error(self, request: Request, status: int, what: str, *, fix: str) -> Response:
        if request.url.path.startswith(NOT_OURS):
            return answer(status, Problem(what=what, where=request.url.path, fix=fix))
        return self._page(request, "error.html", ANONYMOUS, status=status, code=status, what=what, fix=fix)


async def _asset(request: Request) -> Response:
    found = await run_in_threadpool(asset, request.path_params["name"])
    if request.path_params["digest"] != found.digest:
        raise NoSuch("that version of the file is gone", fix="reload the page")
    packs = "gzip" in request.headers.get("accept-encoding", "")
    headers = {**HEADERS, "Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(found.packed if packs else found.body, media_type=found.media_type, headers=headers)


def _see(where: str) -> Response:
    return RedirectResponse(where, 303, headers={**HEADERS, "Cache-Control": "no-store"})


def _number(request: Request) -> int:
    number: int = request.path_params["number"]
    if not 1 <= number <= NUMBER_MAX:
        raise NoSuch(f"there is no rollout {number}")
    return number


def _before(request: Request) -> int | None:
    text = request.query_params.get("before", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
