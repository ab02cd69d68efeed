"""`agent.toml`: every setting has a default but who the device is and where fleet and depot are.

An unknown key is refused with the nearest known one. Times are milliseconds, sizes bytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from drupelet.agent.errors import BadConfig
from drupelet.agent.preflight import Daily
from drupelet.agent.slots import Layout
from drupelet.wire.fields import Label, LabelKey, NameText, OptionalUrl
from drupelet.wire.settings import Section, parse_settings, read_settings

DEFAULT_PATH = Path("/etc/drupelet/agent.toml")
PathText = Annotated[str, Meta(min_length=1, max_length=4096)]
Ms = Annotated[int, Meta(ge=1, le=86_400_000)]
_DAILY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)\Z")


class Device(Section, frozen=True, kw_only=True):
    """Who this device is."""

    id: NameText
    labels: Annotated[dict[LabelKey, Label], Meta(max_length=32)] = field(default_factory=dict)
    state_folder: PathText = "/var/lib/drupelet"
    status_file: Annotated[str, Meta(max_length=4096)] = ""
    """Empty means `status.json` in the state folder; a path on a tmpfs spares the flash."""


class Fleet(Section, frozen=True, kw_only=True):
    """The fleet server, and how often it is asked when it says nothing else."""

    url: OptionalUrl = ""
    """Required where the fleet orders the updates."""
    ca_file: Annotated[str, Meta(max_length=4096)] = ""
    """Certificates to trust instead of the system's."""
    poll_ms: Ms = 30_000
    backoff_ms_max: Ms = 900_000
    timeout_ms: Ms = 15_000


class DepotSettings(Section, frozen=True, kw_only=True):
    """Where metadata of releases and blobs lie."""

    url: OptionalUrl = ""
    """Required where the fleet orders the updates."""
    blobs: Annotated[str, Meta(max_length=512, pattern=r"^(oci(\+http)?://[^\s]+)?$")] = ""
    """Empty: blobs lie at `url` too. `oci://host/repository` fetches them from a registry; metadata stay at `url`."""


class TrustSettings(Section, frozen=True, kw_only=True):
    """The two roots the device was given when it was set up; copied into the state folder by nobody."""

    image_root: PathText = "/etc/drupelet/image-root.json"
    director_root: PathText = "/etc/drupelet/director-root.json"


class GatewaySettings(Section, frozen=True, kw_only=True):
    """How the gateway is reached."""

    control_socket: Annotated[str, Meta(max_length=4096)] = ""
    """Empty means `control.sock` in the state folder."""


class HardwareSettings(Section, frozen=True, kw_only=True):
    """What the device is, where it cannot be seen."""

    board: Annotated[str, Meta(max_length=64)] = ""
    """Empty asks the device tree."""
    npu: Annotated[str, Meta(max_length=64)] = ""
    firmware: Annotated[str, Meta(max_length=64)] = ""
    driver: Annotated[str, Meta(max_length=64)] = ""
    simulated: bool = False
    """Shown wherever the device is."""


class SensorSettings(Section, frozen=True, kw_only=True):
    """Where the machine is felt. Other paths serve simulated boards."""

    sys_root: PathText = "/sys"
    vcgencmd: Annotated[tuple[PathText, ...], Meta(min_length=1, max_length=8)] = ("vcgencmd",)


class Updates(Section, frozen=True, kw_only=True):
    """Who orders updates, when they may begin and how closely a new release is watched."""

    ordered_by: Literal["fleet", "mender"] = "fleet"
    """`mender`: no agent runs; releases come in Mender artifacts, through our update module."""
    windows: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """Local times, such as `02:00-05:00`; none means always."""
    child_deaths_max: Annotated[int, Meta(ge=0, le=1000)] = 3
    """Deaths of the new release's child on probation that are forgiven."""
    watch_prompt_ms: Ms = 300_000
    """How often one canonical prompt is asked of a release on probation."""
    watch_failures_max: Annotated[int, Meta(ge=1, le=100)] = 2
    """Canonical prompts in a row that must fail before the release is taken back."""
    answer_ms_max: Ms = 60_000


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Prometheus metrics of the agent. There is no authentication: keep them on loopback or a trusted network."""

    enabled: bool = False
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 9474
    """0 takes a free one."""


class Limits(Section, frozen=True, kw_only=True):
    """Bounds."""

    slice_bytes: Annotated[int, Meta(ge=4096, le=256 * 1024 * 1024)] = 4 * 1024 * 1024
    """Downloaded or hashed in one go; between two goes a heartbeat may pass."""
    spool_bytes_max: Annotated[int, Meta(ge=64 * 1024, le=2**40)] = 64 * 1024 * 1024
    windows_ms: Ms = 10_000
    """How often measurements are fetched from the gateway."""
    status_ms: Ms = 5_000
    """How often, at most, the status file is written for progress alone."""
    idle_ms: Ms = 1_000
    """The longest the agent sleeps; an operator's command waits no longer."""


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    device: Device
    fleet: Fleet = Fleet()
    depot: DepotSettings = DepotSettings()
    trust: TrustSettings = TrustSettings()
    gateway: GatewaySettings = GatewaySettings()
    hardware: HardwareSettings = HardwareSettings()
    sensors: SensorSettings = SensorSettings()
    updates: Updates = Updates()
    metrics: MetricsSettings = MetricsSettings()
    limits: Limits = Limits()

    @property
    def layout(self) -> Layout:
        """Where everything lies in the state folder."""
        return Layout(Path(self.device.state_folder))

    @property
    def control(self) -> Path:
        """The gateway's socket."""
        named = self.gateway.control_socket
        return Path(named) if named else self.layout.root / "control.sock"

    @property
    def status_file(self) -> Path:
        """Where the agent says what it does."""
        named = self.device.status_file
        return Path(named) if named else self.layout.root / "status.json"

    @property
    def daily(self) -> tuple[Daily, ...]:
        """The maintenance windows."""
        return tuple(_daily(text, where="updates.windows") for text in self.updates.windows)


def _daily(text: str, *, where: str) -> Daily:
    match = _DAILY.match(text)
    if match is None:
        raise BadConfig(f"{text[:40]!r} is not a time of day", where=where, fix='write it like "02:00-05:00"')
    h1, m1, h2, m2 = (int(part) for part in match.groups())
    return Daily(h1 * 60 + m1, h2 * 60 + m2)


def parse(text: bytes, *, where: str) -> Config:
    """Return the configuration in `text`, or raise `BadConfig` saying which key and what would do."""
    config = parse_settings(Config, text, where=where, error=BadConfig)
    return _checked(config, where=where)


def read(path: Path) -> Config:
    """Read and parse a file; raises `NotFound` or `BadConfig`."""
    return _checked(
        read_settings(
            Config, path, error=BadConfig, fix="make one with `drupelet agent init`, or name another with --config"
        ),
        where=str(path),
    )


def _checked(config: Config, *, where: str) -> Config:
    for daily in config.updates.windows:
        _daily(daily, where=f"{where}: updates.windows")
    if config.updates.ordered_by == "fleet":
        for name, url in (("fleet", config.fleet.url), ("depot", config.depot.url)):
            if not url:
                raise BadConfig(
                    f"{name}.url is missing", where=where, fix=f"say where the {name} is: [{name}] url = ..."
                )
    return config
