"""Wires the fleet server: the database, the director's key, the depot, uvicorn, signals."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn

from drupelet.core.errors import BadInput, Conflict, Unavailable
from drupelet.core.errors import NotFound as CoreNotFound
from drupelet.depot.http import HttpFetch
from drupelet.durable import Disk, PosixDisk
from drupelet.fleet.app import Fleet, build
from drupelet.fleet.config import FleetConfig
from drupelet.fleet.credentials import SECRET_BYTES
from drupelet.fleet.store.engine import Store, migrate, open_store
from drupelet.trust.director import Director
from drupelet.trust.images import Images, parse_root
from drupelet.trust.keys import read_signer
from drupelet.trust.passphrase import passphrase_from
from drupelet.web.app import pages

ROOT_BYTES_MAX = 512 * 1024
GRACE_S = 3
"""Seconds that running requests get when the server is told to stop."""
BACKLOG = 1024


def clock_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def open_database(config: FleetConfig) -> Store:
    """Open the database and bring its schema up to date."""
    _own(config.state_folder)
    store = open_store(config.database_url)
    migrate(store)
    return store


def make_fleet(config: FleetConfig, store: Store, *, disk: Disk) -> Fleet:
    """Wire the server's parts."""
    passphrase = passphrase_from(file=config.passphrase_file, environment=os.environ, ask=None)
    roots = [_read_root(disk, path) for path in config.director_root]
    signer = read_signer(config.director_key, passphrase=passphrase())
    images = Images(
        disk,
        config.state_folder / "trust",
        root=_read_root(disk, config.image_root),
        depot_url=config.depot_url,
        fetch=HttpFetch(),
        now=lambda: datetime.now(UTC),
    )
    return Fleet(
        store,
        director=Director(roots=roots, signer=signer),
        images=images,
        secret=_secret(disk, config.state_folder / "secret.key"),
        clock=clock_ms,
        settings=config.settings(),
    )


def run_fleet(config: FleetConfig, *, on_listening: Callable[[str, int], None]) -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    disk = PosixDisk()
    _own(config.state_folder)
    with disk.lock(config.state_folder / "fleet.lock", holder="another drupelet fleet"):
        store = open_database(config)
        try:
            fleet = make_fleet(config, store, disk=disk)
            listening = _listen(config.host, config.port)
            server = _Server(fleet)
            host, port = listening.getsockname()[:2]
            on_listening(host, port)
            server.run(sockets=[listening])
        finally:
            store.close()


class _Server(uvicorn.Server):
    """Uvicorn that lets event streams go when it is told to stop: they would never end by themselves."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(
            uvicorn.Config(
                build(fleet, mounts=[("/", pages(fleet.desks(), clock=clock_ms))]),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=GRACE_S,
                backlog=BACKLOG,
            )
        )
        self._fleet = fleet
        self._running_loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._running_loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._running_loop is not None:
            self._running_loop.call_soon_threadsafe(self._fleet.changes.unbind)
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        # At once: whoever reads that it listens must be able to connect, and a second server must be refused here.
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        taken = error.errno == errno.EADDRINUSE
        raise (Conflict if taken else BadInput)(
            f"cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            fix="stop what holds it, or change listen" if taken else "check listen",
        ) from error
    return made


def _own(folder: Path) -> None:
    """Make the state folder, for its owner alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unavailable(
            f"cannot make this folder: {error.strerror}",
            where=str(folder),
            fix="check state_folder and its disk",
        ) from error


def _read_root(disk: Disk, path: Path) -> bytes:
    try:
        root = disk.read(path, bytes_max=ROOT_BYTES_MAX)
    except CoreNotFound as error:
        raise CoreNotFound(
            "there is no such root", where=str(path), fix="make keys with: drupelet keys init"
        ) from error
    parse_root(root, where=str(path))
    return root


def _secret(disk: Disk, path: Path) -> bytes:
    """Return the secret under which device tokens are made; drawn at the first start."""
    if not disk.exists(path):
        disk.replace(path, secrets.token_bytes(SECRET_BYTES))
    found = disk.read(path, bytes_max=1024)
    if len(found) != SECRET_BYTES:
        raise BadInput(f"the secret has {len(found)} bytes, not {SECRET_BYTES}", where=str(path), fix="remove the file")
    return found
