"""The gateway process: it takes the state folder, opens its two doors, loads what was committed, and serves."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from drupelet.core.errors import DrupeletError, NotFound
from drupelet.durable import Disk, hash_file
from drupelet.gateway import control
from drupelet.gateway.config import Config
from drupelet.gateway.desk import Desk
from drupelet.gateway.effects import CheckDigest, Launch
from drupelet.gateway.errors import BadConfig, PortTaken
from drupelet.gateway.http import HttpSide
from drupelet.telemetry.metrics import GatewayMetrics
from drupelet.telemetry.windows import WindowRecorder
from drupelet.wire.codec import decode_as
from drupelet.wire.control import SERVE_BYTES_MAX, Load, Serve

KEEPALIVE_S = 30.0
TICK_S = 1.0
LOCK_NAME = "gateway.lock"
_REQUEST_SLACK_S = 10.0
"""A request is ended by its own limit; the recorder's is for one that somehow was not."""

_log = logging.getLogger("drupelet.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the gateway can be reached."""

    host: str
    port: int
    control: Path
    boot: str


async def run(
    config: Config,
    *,
    disk: Disk,
    launch: Launch,
    metrics: GatewayMetrics,
    stop: asyncio.Event,
    on_listening: Callable[[Listening], None],
) -> None:
    """Serve until `stop` is set. Raises `Locked`, `PortTaken` or `BadConfig` when it cannot begin."""
    holder = f"a gateway, process {os.getpid()}"
    with disk.lock(config.state / LOCK_NAME, holder=holder):
        boot = uuid.uuid4().hex
        recorder = WindowRecorder(
            boot=boot,
            now=time.monotonic(),
            epoch_ms=_epoch_ms(),
            request_s_max=config.limits.request_ms_max / 1000 + _REQUEST_SLACK_S,
        )
        desk = Desk(
            config,
            launch=launch,
            check=digest_check(disk),
            recorder=recorder,
            metrics=metrics,
            read_serve=lambda: read_serve(disk, config.serve_file),
        )
        await _serve(config, desk, boot=boot, stop=stop, on_listening=on_listening)


async def _serve(
    config: Config,
    desk: Desk,
    *,
    boot: str,
    stop: asyncio.Event,
    on_listening: Callable[[Listening], None],
) -> None:
    side = HttpSide(desk, secret=secrets.token_bytes(32))
    runner = web.AppRunner(
        side.app(),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    talk = control.Control(desk, boot=boot, counts=lambda: (side.requests, side.errors))
    ticking: asyncio.Task[None] | None = None
    server: asyncio.Server | None = None
    try:
        site = await _open_port(runner, config)
        server = await control.listen(talk, config.control)
        desk.begin()
        ticking = asyncio.create_task(_tick(desk))
        port = int(runner.addresses[0][1])
        on_listening(Listening(host=config.listen.host, port=port, control=config.control, boot=boot))
        await stop.wait()
        _log.info("stopping: requests under way may end")
        await site.stop()
        await desk.close()
    finally:
        if ticking is not None:
            ticking.cancel()
        if server is not None:
            server.close()
            talk.hang_up()
            with suppress(OSError):
                config.control.unlink()
        await desk.children.close()
        await runner.cleanup()


async def _open_port(runner: web.AppRunner, config: Config) -> web.TCPSite:
    host, port = config.listen.host, config.listen.port
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            fix = "stop it, or set listen.port to another"
            raise PortTaken("another program listens here", where=where, fix=fix) from error
        raise BadConfig(f"cannot listen: {error.strerror or error}", where=where, fix="see listen.host") from error
    return site


async def _tick(desk: Desk) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        desk.tick(epoch_ms=_epoch_ms())


def read_serve(disk: Disk, path: Path) -> tuple[Load, ...]:
    """Return what the agent committed, the preferred first; nothing if there is nothing or it cannot be read."""
    try:
        serve = decode_as(Serve, disk.read(path, bytes_max=SERVE_BYTES_MAX), where=str(path))
    except NotFound:
        return ()
    except DrupeletError as error:
        # The agent writes it anew when it starts; until then nothing is served rather than something guessed.
        _log.error("cannot read what was committed: %s", error.line())
        return ()
    return serve.loads


def digest_check(disk: Disk) -> CheckDigest:
    """Return a check of a load's file against its digest, off the event loop."""

    def check(load: Load) -> str:
        try:
            found, _size = hash_file(disk, Path(load.path))
        except DrupeletError as error:
            return error.line()
        return "" if found.text == load.digest else f"the model file's digest is {found}, not {load.digest}"

    async def off_the_loop(load: Load) -> str:
        return await asyncio.to_thread(check, load)

    return off_the_loop


def _epoch_ms() -> int:
    return int(time.time() * 1000)
