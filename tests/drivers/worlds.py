"""Each service with its stand-in, so that one contract can be asked of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from drupelet.drivers.balena import Balena
from drupelet.drivers.hawkbit import Hawkbit
from drupelet.drivers.http import Http
from drupelet.drivers.mender import Mender
from drupelet.drivers.port import Service
from tests.fakes.balena_server import BalenaServer
from tests.fakes.hawkbit_server import HawkbitServer
from tests.fakes.json_server import JsonServer
from tests.fakes.mender_server import MenderServer


@dataclass(frozen=True, kw_only=True)
class World:
    """A service, its server, and what devices can be made to do there."""

    server: JsonServer
    make: Callable[[str], Service]
    """With this token."""
    token: str
    group: str
    artifact: str
    succeed: Callable[[str], None]
    fail: Callable[[str], None] | None
    """None where the service has no word for a failed update."""
    has: Callable[[str], str]
    """The artifact a device has now."""
    deployments: Callable[[], int] = field(default=lambda: 0)

    @property
    def service(self) -> Service:
        return self.make(self.token)


def devices(count: int) -> list[str]:
    return [f"dev-{number:04}" for number in range(count)]


def mender(count: int) -> World:
    server = MenderServer({"lab": devices(count), "other": ["stranger"]}, {"kiosk-1.1", "kiosk-1.2"})
    for device in devices(count):
        server.has[device] = "kiosk-1.1"
    return World(
        server=server,
        make=lambda token: Mender(Http("mender", server.url, token), previous="kiosk-1.1"),
        token="secret-token",
        group="lab",
        artifact="kiosk-1.2",
        succeed=lambda device: server.report(device, "success"),
        fail=lambda device: server.report(device, "failure"),
        has=lambda device: server.has[device],
        deployments=lambda: len(server.deployments),
    )


def hawkbit(count: int) -> World:
    server = HawkbitServer({"lab": devices(count), "other": ["stranger"]}, {("kiosk", "1.1"), ("kiosk", "1.2")})
    for device in devices(count):
        server.has[device] = "kiosk:1.1"
    return World(
        server=server,
        make=lambda token: Hawkbit(
            Http("hawkbit", server.url, token), previous="kiosk:1.1", sleep=lambda _seconds: None
        ),
        token="admin:secret",
        group="tag==lab",
        artifact="kiosk:1.2",
        succeed=lambda device: server.report(device, "in_sync"),
        fail=lambda device: server.report(device, "error"),
        has=lambda device: server.has[device],
        deployments=lambda: len(server.rollouts),
    )


def balena(count: int) -> World:
    server = BalenaServer("org/lab", devices(count), {"1.1": 101, "1.2": 102}, runs=101)
    names = {101: "1.1", 102: "1.2"}
    return World(
        server=server,
        make=lambda token: Balena(Http("balena", server.url, token), fleet="org/lab"),
        token="secret-token",
        group="org/lab",
        artifact="1.2",
        succeed=server.report,
        fail=None,
        has=lambda device: names[server.running[device]],
    )


WORLDS = {"mender": mender, "hawkbit": hawkbit, "balena": balena}
