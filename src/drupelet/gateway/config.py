"""`gateway.toml`: every setting has a default; an unknown key is refused with the nearest known one.

Times are milliseconds, sizes bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from drupelet.gateway.admission import QUEUE_MAX
from drupelet.gateway.errors import BadConfig
from drupelet.gateway.router import CONVERSATIONS_MAX, IDLE_MS_MAX
from drupelet.wire.settings import Section, parse_settings, read_settings

Some = Annotated[int, Meta(ge=1, le=2**40)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
PathText = Annotated[str, Meta(min_length=1, max_length=4096)]


class Listen(Section, frozen=True, kw_only=True):
    """Where clients connect. Loopback unless an operator decides otherwise: there is no authentication."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Port = 8080
    """0 takes a free one; `drupelet gateway run` says which."""


class Limits(Section, frozen=True, kw_only=True):
    """How much is taken on, and how long anything may take."""

    queue_max: Annotated[int, Meta(ge=0, le=10_000)] = QUEUE_MAX
    queue_ms_max: Some = 30_000
    """Waiting in line, for a child that restarts included."""
    body_bytes_max: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    body_ms_max: Some = 10_000
    """From the request's head to the end of its body."""
    request_ms_max: Some = 120_000
    """From arrival to the last byte."""
    write_ms_max: Some = 20_000
    """A client that takes nothing for this long is let go."""
    drain_ms_max: Some = 30_000
    """An unload waits this long for requests under way, a shutdown too."""
    conversations_max: Annotated[int, Meta(ge=1, le=1_000_000)] = CONVERSATIONS_MAX
    conversation_idle_ms_max: Some = IDLE_MS_MAX


class ChildSettings(Section, frozen=True, kw_only=True):
    """How inference children run. `context_tokens` 0 takes the release's."""

    llama_server: Annotated[str, Meta(max_length=4096)] = ""
    """A `llama-server`, or a folder with one for each level of CPU. Empty takes `$DRUPELET_LLAMA_SERVER`, and without
    that the library `xllamacpp`."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    context_tokens: Annotated[int, Meta(ge=0, le=2**20)] = 0
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    health_ms_max: Some = 30_000
    """Without a health answer for this long a child is hung and is killed."""
    restart_ms_min: Some = 250
    restart_ms_max: Some = 30_000
    """The rest before a restart doubles from the one to the other."""
    stable_ms: Some = 60_000
    """After this long ready, a death is the first again."""


class SensorSettings(Section, frozen=True, kw_only=True):
    """Where the machine is felt, for `/metrics`. Other paths serve simulated boards."""

    sys_root: PathText = "/sys"
    vcgencmd: Annotated[tuple[PathText, ...], Meta(min_length=1, max_length=8)] = ("vcgencmd",)


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    state_folder: PathText = "/var/lib/drupelet"
    """Shared with the agent: `serve.json` and the slots lie there."""
    runtime_folder: PathText = "/run/drupelet-gateway"
    """Private; the children's sockets lie there."""
    control_socket: Annotated[str, Meta(max_length=4096)] = ""
    """Empty means `control.sock` in the state folder."""
    listen: Listen = Listen()
    limits: Limits = Limits()
    child: ChildSettings = ChildSettings()
    sensors: SensorSettings = SensorSettings()

    @property
    def state(self) -> Path:
        """The state folder."""
        return Path(self.state_folder)

    @property
    def control(self) -> Path:
        """Where the agent connects."""
        return Path(self.control_socket) if self.control_socket else self.state / "control.sock"

    @property
    def serve_file(self) -> Path:
        """What the agent committed."""
        return self.state / "serve.json"


def parse(text: bytes, *, where: str) -> Config:
    """Return the configuration in `text`, or raise `BadConfig` saying which key and what would do."""
    return parse_settings(Config, text, where=where, error=BadConfig)


def read(path: Path) -> Config:
    """Read and parse a file; raises `NotFound` or `BadConfig`."""
    return read_settings(Config, path, error=BadConfig, fix="write it, or name another with --config")
