"""Every route of the management API. Each says its scope, its shapes and one sentence; the rest is in the desks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from drupelet.core.names import ReleaseId
from drupelet.fleet.api.bodies import Because, LabelsBody, ReleaseBody, Rolled, RolloutBody, Secret, TokenBody
from drupelet.fleet.api.door import Door, body, documented, in_thread, said
from drupelet.fleet.credentials import Scope
from drupelet.fleet.enrolment import DeviceDesk
from drupelet.fleet.machine import Event
from drupelet.fleet.policy import policy_of_builtins
from drupelet.fleet.read import Reader
from drupelet.fleet.releases import Releases
from drupelet.fleet.rollouts import Rollouts, Wanted
from drupelet.fleet.tokens import Tokens
from drupelet.fleet.views import (
    DevicePage,
    Overview,
    Page,
    ReleaseView,
    RolloutPage,
    TokenView,
    WhyView,
)
from drupelet.wire.manifest import ReleaseManifest

DeviceName = Annotated[str, Path(max_length=64)]
Number = Annotated[int, Path(ge=1, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=1)]


@dataclass(frozen=True, slots=True)
class Desks:
    """Everything the routes ask."""

    door: Door
    reader: Reader
    devices: DeviceDesk
    releases: Releases
    rollouts: Rollouts
    tokens: Tokens
    wake: Callable[[], None]
    """Called after whatever the reconciler should look at now."""


def router(desks: Desks) -> APIRouter:
    """Return all routes, without a prefix."""
    made = APIRouter()
    _overview(made, desks)
    _devices(made, desks)
    _device_changes(made, desks)
    _releases(made, desks)
    _rollouts(made, desks)
    _rollout_commands(made, desks)
    _tokens(made, desks)
    return made


def _overview(made: APIRouter, desks: Desks) -> None:
    @made.get("/overview", tags=["overview"], summary="What needs attention, and counts", **documented(Overview))
    async def overview(request: Request) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.overview))

    @made.get("/audit", tags=["audit"], summary="The audit log, newest first", **documented(Page))
    async def audit(request: Request, subject: str = "", before: Before = None, limit: Limit = 100) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.audit, subject=subject[:128], before=before, limit=limit))


def _devices(made: APIRouter, desks: Desks) -> None:
    @made.get("/devices", tags=["devices"], summary="Devices, by name", **documented(Page))
    async def devices(request: Request, selector: str = "", after: str = "", limit: Limit = 1000) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.devices, selector=selector, after=after, limit=limit))

    @made.get("/devices/{device}", tags=["devices"], summary="All about one device", **documented(DevicePage))
    async def device(request: Request, device: DeviceName) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.device, device))

    @made.get("/devices/{device}/why", tags=["devices"], summary="Why it is not updated", **documented(WhyView))
    async def why(request: Request, device: DeviceName) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.why, device))


def _device_changes(made: APIRouter, desks: Desks) -> None:
    def decision(verb: str, approve: bool) -> None:
        shapes = documented(DevicePage, asked=Because)

        @made.post(
            f"/devices/{{device}}/{verb}", tags=["devices"], summary=f"{verb.title()} a device", name=verb, **shapes
        )
        async def decide(request: Request, device: DeviceName) -> Response:
            who = await desks.door.bearer(request, Scope.OPERATE)
            asked = await body(request, Because)
            await in_thread(desks.devices.decide, device, approve=approve, by=who.name, reason=asked.reason)
            desks.wake()
            return said(await in_thread(desks.reader.device, device))

    decision("approve", True)
    decision("reject", False)

    @made.patch(
        "/devices/{device}/labels", tags=["devices"], summary="Set and remove labels",
        **documented(DevicePage, asked=LabelsBody),
    )  # fmt: skip
    async def label(request: Request, device: DeviceName) -> Response:
        who = await desks.door.bearer(request, Scope.OPERATE)
        asked = await body(request, LabelsBody)
        await in_thread(desks.devices.label, device, asked.labels, by=who.name)
        return said(await in_thread(desks.reader.device, device))

    @made.delete("/devices/{device}", tags=["devices"], summary="Remove a device", **documented(status=204))
    async def remove(request: Request, device: DeviceName, reason: str = "") -> Response:
        who = await desks.door.bearer(request, Scope.OPERATE)
        await in_thread(desks.devices.remove, device, by=who.name, reason=reason[:1000])
        desks.wake()
        return Response(status_code=204)


def _releases(made: APIRouter, desks: Desks) -> None:
    @made.get("/releases", tags=["releases"], summary="Releases, newest first", **documented(tuple[ReleaseView, ...]))
    async def releases(request: Request) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.releases))

    @made.post(
        "/releases", tags=["releases"], summary="Fetch, verify and register a release",
        **documented(ReleaseView, asked=ReleaseBody, status=201),
    )  # fmt: skip
    async def add(request: Request) -> Response:
        who = await desks.door.bearer(request, Scope.RELEASE)
        release = ReleaseId.parse((await body(request, ReleaseBody)).release)
        await in_thread(desks.releases.add, release, by=who.name)
        return said(await in_thread(desks.reader.release, release.path), 201)

    @made.get("/releases/{family}/{version}", tags=["releases"], summary="One release", **documented(ReleaseView))
    async def release(request: Request, family: str, version: str) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.release, ReleaseId.parse(f"{family}/{version}").path))

    @made.get(
        "/releases/{family}/{version}/manifest", tags=["releases"], summary="Its manifest, as it was verified",
        **documented(ReleaseManifest),
    )  # fmt: skip
    async def manifest(request: Request, family: str, version: str) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.manifest, ReleaseId.parse(f"{family}/{version}").path))

    @made.post(
        "/releases/{family}/{version}/condemn", tags=["releases"],
        summary="Condemn a release and take it back everywhere", **documented(Rolled, asked=Because),
    )  # fmt: skip
    async def condemn(request: Request, family: str, version: str) -> Response:
        who = await desks.door.bearer(request, Scope.RELEASE)
        name = ReleaseId.parse(f"{family}/{version}")
        asked = await body(request, Because)
        back = await in_thread(desks.rollouts.condemn, name, by=who.name, reason=asked.reason)
        desks.wake()
        return said(Rolled(release=name.path, rolled_back=back))


def _rollouts(made: APIRouter, desks: Desks) -> None:
    @made.get("/rollouts", tags=["rollouts"], summary="Rollouts, newest first", **documented(Page))
    async def rollouts(request: Request, before: Before = None, limit: Limit = 50) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.rollouts, before=before, limit=limit))

    @made.get("/rollouts/{number}", tags=["rollouts"], summary="All about one rollout", **documented(RolloutPage))
    async def rollout(request: Request, number: Number) -> Response:
        await desks.door.bearer(request, Scope.READ)
        return said(await in_thread(desks.reader.rollout, number))

    @made.post(
        "/rollouts", tags=["rollouts"], summary="Start a rollout",
        **documented(RolloutPage, asked=RolloutBody, status=201),
    )  # fmt: skip
    async def start(request: Request) -> Response:
        who = await desks.door.bearer(request, Scope.OPERATE)
        asked = await body(request, RolloutBody)
        wanted = Wanted(
            release=ReleaseId.parse(asked.release),
            selector=asked.selector,
            stages=asked.stages,
            policy=policy_of_builtins(asked.policy),
            seed=asked.seed,
        )
        number = await in_thread(desks.rollouts.start, wanted, by=who.name)
        desks.wake()
        return said(await in_thread(desks.reader.rollout, number), 201)


def _rollout_commands(made: APIRouter, desks: Desks) -> None:
    def command(event: Event, summary: str) -> None:
        verb = event.value
        shapes = documented(RolloutPage, asked=Because, status=202)

        @made.post(f"/rollouts/{{number}}/{verb}", tags=["rollouts"], summary=summary, name=verb, **shapes)
        async def ask(request: Request, number: Number) -> Response:
            who = await desks.door.bearer(request, Scope.OPERATE)
            asked = await body(request, Because)
            await in_thread(desks.rollouts.command, number, event, by=who.name, reason=asked.reason)
            desks.wake()
            return said(await in_thread(desks.reader.rollout, number), 202)

    command(Event.PAUSE, "Expose nobody else until resumed")
    command(Event.RESUME, "Go on")
    command(Event.ABORT, "Take the release back without condemning it")
    command(Event.ROLLBACK, "Take the release back and condemn it")


def _tokens(made: APIRouter, desks: Desks) -> None:
    @made.get("/tokens", tags=["tokens"], summary="API tokens", **documented(tuple[TokenView, ...]))
    async def tokens(request: Request) -> Response:
        await desks.door.bearer(request, Scope.ADMIN)
        return said(await in_thread(desks.reader.tokens))

    @made.post(
        "/tokens", tags=["tokens"], summary="Make an API token", **documented(Secret, asked=TokenBody, status=201)
    )
    async def create(request: Request) -> Response:
        who = await desks.door.bearer(request, Scope.ADMIN)
        asked = await body(request, TokenBody)
        secret = await in_thread(
            desks.tokens.create, asked.name, asked.scopes, by=who.name, lifetime_ms=asked.lifetime_ms
        )
        return said(Secret(name=asked.name, token=secret), 201)

    @made.delete("/tokens/{name}", tags=["tokens"], summary="Revoke a token", **documented(status=204))
    async def revoke(request: Request, name: str) -> Response:
        who = await desks.door.bearer(request, Scope.ADMIN)
        await in_thread(desks.tokens.revoke, name, by=who.name)
        return Response(status_code=204)
