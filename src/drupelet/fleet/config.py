"""The server's configuration file, TOML: `/etc/drupelet/fleet.toml`. Unknown keys are refused, with the nearest known.

listen = "127.0.0.1:8443"
database = "sqlite:////var/lib/drupelet/fleet.db"
state_folder = "/var/lib/drupelet/fleet"
depot_url = "http://127.0.0.1:8080"
image_root = "/etc/drupelet/image-root.json"
director_root = ["/etc/drupelet/director-root.json"]
director_key = "/etc/drupelet/director-online.pem"
passphrase_file = "/etc/drupelet/director.pass"
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.fleet.app import Settings
from drupelet.fleet.intake import Pace
from drupelet.wire.settings import Section, parse_settings, read_settings

_LISTEN = re.compile(r"(?:[^:\s]+|\[[0-9a-f:]+\]):\d{1,5}\Z")


class FleetConfig(Section, frozen=True, kw_only=True):
    """All keys of the file. Relative paths are relative to the file."""

    listen: Annotated[str, Meta(max_length=300)] = "127.0.0.1:8443"
    """Host and port; an IPv6 address in brackets."""
    database: str = ""
    """Empty: `fleet.db` in the state folder, SQLite."""
    state_folder: Path
    depot_url: str
    """Where devices and this server fetch metadata, manifests and blobs."""
    image_root: Path
    director_root: tuple[Path, ...]
    """Every version of the director's root, oldest first."""
    director_key: Path
    passphrase_file: Path | None = None
    """Empty: DRUPELET_PASSPHRASE."""
    poll_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 30_000
    poll_active_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 5_000
    reconcile_every_ms: Annotated[int, Meta(ge=50, le=600_000)] = 1_000
    offline_ms: Annotated[int, Meta(ge=1_000)] = 120_000
    retention_days: Annotated[int, Meta(ge=1, le=3660)] = 7
    enrol_attempts_per_minute_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 120
    anonymous_read: bool = False
    """Let anybody who reaches the port read: for one machine only."""

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 takes a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def database_url(self) -> str:
        """The database, with its default."""
        return self.database or f"sqlite:///{self.state_folder / 'fleet.db'}"

    def settings(self) -> Settings:
        """Return what the application is told."""
        return Settings(
            pace=Pace(poll_ms=self.poll_ms, active_ms=self.poll_active_ms),
            reconcile_every_s=self.reconcile_every_ms / 1000,
            offline_ms=self.offline_ms,
            retention_ms=self.retention_days * 86_400_000,
            attempts_per_minute_max=self.enrol_attempts_per_minute_max,
            anonymous_read=self.anonymous_read,
        )


def read_config(path: Path) -> FleetConfig:
    """Return the configuration, or raise `BadInput` naming the key that is wrong, or `NotFound`."""
    config = read_settings(FleetConfig, path, error=BadInput, fix="give --config FILE", convert=as_path)
    return _placed(config, where=path)


def parse_config(text: bytes, *, where: Path) -> FleetConfig:
    """Return the configuration in `text`, as if `where` held it."""
    return _placed(parse_settings(FleetConfig, text, where=str(where), error=BadInput, convert=as_path), where=where)


def _placed(config: FleetConfig, *, where: Path) -> FleetConfig:
    if not _LISTEN.match(config.listen) or config.port > 65_535:
        raise BadInput(
            f"listen: {config.listen[:80]!r} is not host:port", where=str(where), fix="for example 127.0.0.1:8443"
        )
    base = where.parent.absolute()
    return msgspec.structs.replace(
        config,
        state_folder=base / config.state_folder,
        image_root=base / config.image_root,
        director_root=tuple(base / path for path in config.director_root),
        director_key=base / config.director_key,
        passphrase_file=None if config.passphrase_file is None else base / config.passphrase_file,
    )


def as_path(kind: type, value: Any) -> Any:
    """Return a path where the settings want one; TOML has none."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is not a path")  # msgspec adds where
