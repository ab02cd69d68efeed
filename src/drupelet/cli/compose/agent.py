"""Wires the agent process: the real disk, clocks, sensors, fleet, depot, gateway; its lock, its signals, its loop."""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from urllib3 import PoolManager

from drupelet.agent.config import Config
from drupelet.agent.control import SocketGateway
from drupelet.agent.effects import FleetLink, Ports, Readings
from drupelet.agent.errors import AgentSilent
from drupelet.agent.fleet_link import DeviceKey, HttpFleetLink
from drupelet.agent.hardware import read_hardware
from drupelet.agent.model import RESTING, DeviceState
from drupelet.agent.run import Agent
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest
from drupelet.depot.download import Download
from drupelet.depot.http import HttpFetch, HttpSource, make_pool
from drupelet.depot.oci import Reference, Registry
from drupelet.depot.oci.credentials import find_credentials
from drupelet.depot.oci.session import Session
from drupelet.depot.ports import Source
from drupelet.durable import Disk, PosixDisk
from drupelet.telemetry.sensors import PiSensors, read_all
from drupelet.telemetry.spool import Spool
from drupelet.trust.images import parse_root
from drupelet.trust.verifier import Verifier
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order

if TYPE_CHECKING:
    from drupelet.agent.exposed import Exposed

ROOT_BYTES_MAX = 512 * 1024
SENSORS_MS = 1_000
"""Sensors are read at most this often: `vcgencmd` is a process."""


class RealClock:
    """Implements `effects.Clock`."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return max(0, time.time_ns() // 1_000_000)


class SystemCoins:
    """Implements `effects.Coins` with the operating system's own randomness, which nothing else here uses."""

    def flip(self) -> bool:
        return bool(secrets.randbits(1))


class BoardSensors:
    """Implements `effects.Sensors` over telemetry's, remembering a reading for a moment."""

    def __init__(self, sensors: PiSensors, clock: RealClock) -> None:
        self._sensors, self._clock = sensors, clock
        self._read_ms = -SENSORS_MS
        self._readings = Readings()

    def read(self) -> Readings:
        now = self._clock.monotonic_ms()
        if now - self._read_ms >= SENSORS_MS:
            found = read_all(self._sensors)
            self._readings = Readings(found.temperature_celsius, dict(found.throttled), found.memory_available_bytes)
            self._read_ms = now
        return self._readings


class BoundTrust:
    """Implements `effects.Trust`: the verifier, with the link's token."""

    def __init__(self, verifier: Verifier, token: Callable[[], str]) -> None:
        self._verifier, self._token = verifier, token

    @property
    def order(self) -> Order | None:
        return self._verifier.order

    def refresh_director(self) -> Order | None:
        return self._verifier.refresh_director(token=self._token())

    def vouch(self, order: Order) -> ReleaseManifest:
        return self._verifier.vouch(order)

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        return self._verifier.remembered(digest)


class Downloads:
    """Implements `effects.Depot`: resumable downloads into the part files of the state folder."""

    def __init__(self, disk: Disk, source: Source, config: Config) -> None:
        self._disk, self._source, self._layout = disk, source, config.layout

    def fetching(self, digest: Digest, size_bytes: int) -> Download:
        return Download(self._source, self._disk, part=self._layout.part(digest), digest=digest, size=size_bytes)


def blob_source(config: Config, pool: PoolManager) -> Source:
    """Return where this device fetches blobs: its depot, or a registry. The agent itself tries again, and waits."""
    if not config.depot.blobs:
        return HttpSource(config.depot.url, pool)
    repository = Reference.parse(config.depot.blobs).repository
    credentials = find_credentials(repository.host, environment=os.environ, home=config.layout.root)
    return Registry(Session(repository, credentials=credentials, pool=pool, attempts_max=1))


def make_ports(config: Config, disk: Disk, *, online: bool) -> Ports:
    """Return the real ports; without a link when not `online`."""
    clock = RealClock()
    hardware = read_hardware(config.hardware)
    pool = make_pool(ca_file=config.fleet.ca_file or None, connections=2)
    key = DeviceKey.read(disk, config.layout.key)
    link = HttpFleetLink(config.fleet, config.device, key=key, hardware=hardware, pool=pool)
    verifier = Verifier(
        disk,
        config.layout.trust,
        device=config.device.id,
        image_root=read_root(disk, config.trust.image_root),
        director_root=read_root(disk, config.trust.director_root),
        director_url=link.director_url,
        depot_url=config.depot.url,
        fetch=HttpFetch(pool),
        now=lambda: datetime.now(UTC),
    )
    sensors = PiSensors(sys_root=Path(config.sensors.sys_root), vcgencmd=config.sensors.vcgencmd)
    fleet: FleetLink | None = link if online else None
    return Ports(
        disk=disk,
        clock=clock,
        coins=SystemCoins(),
        jitter=random.SystemRandom().random,
        link=fleet,
        trust=BoundTrust(verifier, link.token),
        gateway=SocketGateway(config.control),
        depot=Downloads(disk, blob_source(config, pool), config),
        sensors=BoardSensors(sensors, clock),
        spool=Spool(disk, config.layout.spool, bytes_max=config.limits.spool_bytes_max),
        hardware=hardware,
    )


def read_root(disk: Disk, path: str) -> bytes:
    """Return a root of trust the device was given. Raises `NotFound` saying where roots come from, or `BadInput`."""
    try:
        root = disk.read(Path(path), bytes_max=ROOT_BYTES_MAX)
    except NotFound as error:
        fix = "copy it from the key ring: drupelet keys init writes image-root.json and director-root.json"
        raise NotFound("there is no root of trust", where=path, fix=fix) from error
    parse_root(root, where=path)
    return root


def boot_id() -> str:
    """Return the kernel's boot id, or a random one where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:64]
    except OSError:
        return uuid.uuid4().hex


def holder() -> str:
    """Return who holds the lock, for whoever finds it held."""
    return f"drupelet agent, pid {os.getpid()}"


def run_agent(config: Config, *, on_start: Callable[[DeviceState], None]) -> None:
    """Run until SIGTERM or SIGINT. Raises `Locked` if another agent runs on the folder."""
    disk = PosixDisk()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with disk.lock(config.layout.lock, holder=holder()):
        ports = make_ports(config, disk, online=True)
        agent = Agent(ports, config, boot=boot_id())
        agent.start()
        exposed = _exposed(config, disk, agent.state)
        on_start(agent.state)
        try:
            while not stop.is_set():
                wait_ms = agent.tick()
                if exposed is not None:
                    exposed.follow(agent.state, ports.spool, answered_ms=agent.answered_ms)
                stop.wait(wait_ms / 1000)
        finally:
            agent.close()
            if exposed is not None:
                exposed.close()


def _exposed(config: Config, disk: Disk, state: DeviceState) -> Exposed | None:
    """Return the metrics server, if it is wanted; only then is its library loaded."""
    if not config.metrics.enabled:
        return None
    from drupelet.agent.exposed import Exposed
    from drupelet.telemetry.collectors import DeviceCollector, Machine
    from drupelet.telemetry.metrics import AgentMetrics
    from drupelet.telemetry.throttle import ThrottleLog

    sensors = PiSensors(sys_root=Path(config.sensors.sys_root), vcgencmd=config.sensors.vcgencmd)
    metrics = AgentMetrics([DeviceCollector(Machine(sensors, os.getpid()), clock=time.monotonic)])
    throttling = ThrottleLog(disk, config.layout.throttling, sensors)
    return Exposed(metrics, config.metrics, throttling=throttling, since=state.seq, clock=time.monotonic)


def run_until_rest(config: Config, disk: Disk, *, timeout_s: float) -> DeviceState:
    """Work without a fleet until the machine rests: for commands on a device whose agent does not run.

    The caller holds the lock. Raises `AgentSilent` if it takes longer than `timeout_s`.
    """
    agent = Agent(make_ports(config, disk, online=False), config, boot=boot_id())
    agent.start()
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            wait_ms = agent.tick()
            if agent.state.state in RESTING:
                return agent.state
            if time.monotonic() > deadline:
                said = agent.state.detail or agent.state.state.value
                raise AgentSilent(f"not done after {timeout_s:.0f} s: {said}", fix="is the gateway running?")
            time.sleep(min(wait_ms, 200) / 1000)
    finally:
        agent.close()


def check_folder(config: Config) -> None:
    """Raise `BadInput` if the control socket's path is longer than a Unix socket's may be."""
    if len(os.fsencode(config.control)) > 107:
        raise BadInput(
            "longer than a Unix socket's path may be", where=str(config.control), fix="set gateway.control_socket"
        )
