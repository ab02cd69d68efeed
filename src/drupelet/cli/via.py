"""Rollouts through other update systems: which one, with what credentials, and following it to its end."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import msgspec
import typer

from drupelet.cli.output import Format, say
from drupelet.core.errors import BadInput, Refused, Unavailable
from drupelet.core.names import ReleaseId
from drupelet.drivers import deployment
from drupelet.drivers.balena import Balena
from drupelet.drivers.fleet import Fleet
from drupelet.drivers.hawkbit import Hawkbit
from drupelet.drivers.http import Http
from drupelet.drivers.mender import Mender
from drupelet.drivers.port import Driver, Plan, Seen, Service, Stage, State
from drupelet.drivers.staged import Staged
from drupelet.durable import PosixDisk

POLL_S = 10.0
NOTES_FOLDER = Path(".drupelet") / "rollouts"


class Via(Enum):
    """Whose devices they are."""

    DRUPELET = "drupelet"
    MENDER = "mender"
    BALENA = "balena"
    HAWKBIT = "hawkbit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    via: Via
    release: str
    to: str
    stages: str
    name: str
    seed: str
    deployment: Path | None
    artifact: Path | None
    previous: str
    soak_s: float
    once: bool
    abort: bool
    reason: str
    timeout_s: float
    server: str
    token: str


def given(context: typer.Context, via: Via, *, server: str, token: str) -> tuple[str, str]:
    """Return server and token: what was typed, else the service's own variables, never another service's secret."""
    typed = {name for name in ("server", "token") if _source(context, name) == "COMMANDLINE"}
    if via is not Via.DRUPELET:
        prefix = via.name
        server = server if "server" in typed else os.environ.get(f"{prefix}_SERVER", "")
        token = token if "token" in typed else os.environ.get(f"{prefix}_TOKEN", "")
        if not server:
            raise BadInput(f"no {via.value} server is named", fix=f"give --server URL or set {prefix}_SERVER")
    return server, token.strip()


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""


def plan_of(asked: Asked) -> tuple[Via, Plan]:
    """Return through whom and how far; a deployment file says what the command line leaves out."""
    via, soak_ms = asked.via, int(asked.soak_s * 1000)
    if asked.deployment is not None:
        found = deployment.read(asked.deployment)
        plan = deployment.plan(found, name=asked.name)
        return Via(found.type), replace(plan, group=asked.to or plan.group, seed=asked.seed, soak_ms=soak_ms)
    if not asked.release:
        raise BadInput("no release is named", fix="for example: drupelet rollout start kiosk/1.2 --via mender")
    if not asked.stages:
        raise BadInput(f"no stages are given, and {via.value} knows none", fix="for example --stages 1,25%,100%")
    artifact = _artifact_name(via, asked.release)
    stages = tuple(Stage.parse(text) for text in asked.stages.split(","))
    name = asked.name or artifact
    return via, Plan(name=name, artifact=artifact, group=asked.to, stages=stages, seed=asked.seed, soak_ms=soak_ms)


def _artifact_name(via: Via, release: str) -> str:
    """Return what a service calls a release of ours; any other name is left as it is."""
    joint = {Via.MENDER: "-", Via.HAWKBIT: ":"}.get(via)
    if joint is None or "/" not in release:
        return release
    known = ReleaseId.parse(release)
    return f"{known.family}{joint}{known.version}"


def driver_of(via: Via, plan: Plan, asked: Asked) -> Driver:
    """Return the rollout's driver; an artifact that was given as a file is put there first."""
    http = Http(via.value, asked.server, asked.token)
    if via is Via.DRUPELET:
        return Fleet(http, plan)
    service: Service
    if via is Via.MENDER:
        service = mender = Mender(http, previous=_artifact_name(via, asked.previous))
        if asked.artifact is not None:
            mender.upload(asked.artifact)
    elif via is Via.HAWKBIT:
        service = hawkbit = Hawkbit(http, previous=_artifact_name(via, asked.previous))
        if asked.artifact is not None:
            hawkbit.upload(plan.artifact, asked.artifact)
    else:
        if asked.artifact is not None:
            raise BadInput("balena takes no files", where="--artifact", fix="push the release: balena push FLEET")
        service = Balena(http, fleet=plan.group)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{via.value}-{plan.name}")
    notes = (NOTES_FOLDER / f"{name}.json").absolute()
    return Staged(service, plan, notes=notes, disk=PosixDisk(), now_ms=lambda: time.time_ns() // 1_000_000)


def follow(
    driver: Driver,
    *,
    name: str,
    output: Format,
    timeout_s: float,
    once: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Step until it ends. Raises `Refused` with the words if it was taken back, `Unavailable` after `timeout_s`."""
    deadline, said = clock() + timeout_s, ""
    while True:
        try:
            seen = driver.step()
            line = _line(seen, name, output)
        except Unavailable as error:
            if once or clock() > deadline:
                raise
            seen, line = None, f"{name}: {error.line()}; asking again"
        if line != said:
            print(line, flush=True)
            said = line
        if seen is not None and seen.state is State.TAKEN_BACK:
            raise Refused(f"it was taken back: {seen.says}", where=name)
        if once or (seen is not None and seen.state.ended):
            return
        if clock() > deadline:
            raise Unavailable(
                f"it has not ended within {timeout_s:.0f} s", where=name, fix="run the same command again"
            )
        sleep(POLL_S)


def _line(seen: Seen, name: str, output: Format) -> str:
    if output is Format.JSON:
        return json.dumps(msgspec.to_builtins(seen), sort_keys=True)
    counts = f"{seen.exposed} given it, {seen.done} have it, {seen.failed} failed"
    return f"{name}: {seen.state.value}, stage {seen.stage + 1} of {seen.stages}; {counts}; {seen.says}"


def roll_out(context: typer.Context, asked: Asked, *, output: Format) -> None:
    """Plan, start and follow a rollout through another system, or through ours from a deployment file."""
    via, plan = plan_of(asked)
    server, token = given(context, via, server=asked.server, token=asked.token)
    driver = driver_of(via, plan, replace(asked, server=server, token=token))
    if asked.abort:
        seen = driver.abort(asked.reason)
        print(_line(seen, plan.name, output))
        return
    if via is not Via.DRUPELET:
        say(f"{via.value} reports installations, not how well the release works: no gate judges this rollout")
    try:
        follow(driver, name=plan.name, output=output, timeout_s=asked.timeout_s, once=asked.once)
    except KeyboardInterrupt:
        say(f"{plan.name} stays as it is; the same command goes on with it, --abort takes it back")
        raise
