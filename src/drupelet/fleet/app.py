"""The server's application: the management API above, the devices' routes mounted beside it, one owner of resources.

A mounted application's lifespan does not run, so this one starts and stops everything: the intake thread first, so that
polls are taken in as soon as they can arrive, the reconciler after it; they end in the other order.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from drupelet import __version__
from drupelet.core.errors import DrupeletError
from drupelet.fleet.api import pages, routes, stream
from drupelet.fleet.api.door import Door, components, said
from drupelet.fleet.changes import Changes
from drupelet.fleet.credentials import Badges
from drupelet.fleet.device_api import DeviceApi
from drupelet.fleet.director import Desk
from drupelet.fleet.enrolment import ATTEMPTS_PER_MINUTE_MAX, DeviceDesk, Enrolment, Throttle
from drupelet.fleet.intake import Intake, Pace
from drupelet.fleet.problems import Problem, answer, problem, unforeseen
from drupelet.fleet.read import OFFLINE_MS, Reader
from drupelet.fleet.reconcile import RETENTION_MS, Reconciler
from drupelet.fleet.releases import Releases, Vouches
from drupelet.fleet.rollouts import Rollouts
from drupelet.fleet.store.engine import Store
from drupelet.fleet.tokens import Tokens
from drupelet.trust.director import Director

API = "/api/v1"
COLLECT_EVERY = 200_000
"""New objects before the collector looks at the young ones."""
DEVICE = "/device/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server may be told; see docs/fleet.md."""

    pace: Pace = field(default_factory=Pace)
    reconcile_every_s: float = 1.0
    offline_ms: int = OFFLINE_MS
    retention_ms: int = RETENTION_MS
    attempts_per_minute_max: int = ATTEMPTS_PER_MINUTE_MAX
    anonymous_read: bool = False


class Fleet:
    """The parts of a server, wired. `close` ends what was opened; the store is the caller's to close."""

    def __init__(
        self, store: Store, *, director: Director, images: Vouches, secret: bytes, clock: Callable[[], int],
        settings: Settings = Settings(),
    ) -> None:  # fmt: skip
        self.settings = settings
        self.clock = clock
        self.changes = Changes()
        self.badges = Badges(secret)
        self.enrolment = Enrolment(store, badges=self.badges, changes=self.changes, clock=clock)
        self.devices = DeviceDesk(store, changes=self.changes, clock=clock)
        self.releases = Releases(store, images=images, changes=self.changes, clock=clock)
        self.rollouts = Rollouts(store, changes=self.changes, clock=clock)
        self.tokens = Tokens(store, clock=clock)
        self.reader = Reader(store, clock=clock, offline_ms=settings.offline_ms)
        self.desk = Desk(store, director=director, clock=clock)
        self.intake = Intake(store, changes=self.changes, clock=clock, pace=settings.pace)
        self.reconciler = Reconciler(
            store, desk=self.desk, changes=self.changes, clock=clock, retention_ms=settings.retention_ms
        )
        self.door = Door(self.tokens, anonymous_read=settings.anonymous_read)

    def desks(self) -> routes.Desks:
        """Return what the management API's routes ask."""
        return routes.Desks(
            door=self.door, reader=self.reader, devices=self.devices, releases=self.releases, rollouts=self.rollouts,
            tokens=self.tokens, wake=self.reconciler.wake,
        )  # fmt: skip

    def device_api(self) -> DeviceApi:
        """Return the devices' side."""
        return DeviceApi(
            badges=self.badges, enrolment=self.enrolment,
            throttle=Throttle(per_minute_max=self.settings.attempts_per_minute_max),
            intake=self.intake, desk=self.desk, clock=self.clock,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the threads while in the context."""
        self.changes.bind(asyncio.get_running_loop())
        settle()
        self.intake.start()
        self.reconciler.start(every_s=self.settings.reconcile_every_s)
        try:
            yield
        finally:
            self.changes.unbind()
            await asyncio.to_thread(self.reconciler.stop)
            await asyncio.to_thread(self.intake.stop)


def build(fleet: Fleet, *, mounts: Sequence[tuple[str, ASGIApp]] = ()) -> ASGIApp:
    """Return the application. `mounts` come last, such as the pages at `/`; they share the fleet's resources.

    Devices' requests, nearly all there are, go past FastAPI straight to their own routes.
    """
    devices, others = fleet.device_api().app(), management(fleet, mounts=mounts)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{DEVICE}/"):
            await devices({**scope, "root_path": scope.get("root_path", "") + DEVICE}, receive, send)
        else:
            await others(scope, receive, send)

    return application


def management(fleet: Fleet, *, mounts: Sequence[tuple[str, ASGIApp]] = ()) -> FastAPI:
    """Return the management API with its documents and what is mounted below it."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with fleet.running():
            yield

    app = FastAPI(
        title="Drupelet fleet", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Signed, staged, self-reverting releases. Errors are {what, where, fix}.",
    )  # fmt: skip
    app.add_exception_handler(DrupeletError, problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, unforeseen)
    app.include_router(routes.router(fleet.desks()), prefix=API)
    app.include_router(stream.router(fleet.door, fleet.changes), prefix=API)
    pages.mount(app)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        return said({"ok": True, "version": __version__})

    for path, mounted in mounts:
        app.mount(path, mounted)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {}).setdefault("schemas", {}).update(components())
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return app


def settle() -> None:
    """Take what is loaded by now out of the garbage collector's sight, and let it look less often.

    Every poll makes hundreds of small objects that live until its transaction ends; with the defaults, a third of the
    server's time went into looking at modules that never change.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else "failed"
    fix = "see /docs for what there is" if status == 404 else ""
    return answer(status, Problem(what=detail.lower(), where=request.url.path, fix=fix))


async def _invalid(request: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    field = ".".join(str(part) for part in found.get("loc", ()))
    return answer(400, Problem(what=f"{field}: {found.get('msg', 'is not valid')}", where=request.url.path))
