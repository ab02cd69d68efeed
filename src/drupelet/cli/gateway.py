"""`drupelet gateway`: the device's OpenAI-compatible endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.gateway import config as settings
from drupelet.gateway.control_client import ControlClient
from drupelet.gateway.errors import GatewayUnreachable
from drupelet.wire.control import AskStatus, GatewayStatus

app = typer.Typer()

DEFAULT_CONFIG = Path("/etc/drupelet/gateway.toml")
ConfigPath = Annotated[Path, typer.Option("-c", "--config", help="The gateway's configuration file.")]


@app.command()
def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Serve the committed release until SIGTERM.

    Example: drupelet gateway run --config /etc/drupelet/gateway.toml
    """
    wanted = settings.read(config)
    from drupelet.cli.compose.gateway import run_gateway

    run_gateway(
        wanted,
        on_listening=lambda at: say(f"gateway: listening on http://{at.host}:{at.port}, control socket {at.control}"),
    )


@app.command()
def check(config: ConfigPath = DEFAULT_CONFIG, output: Output = Format.TABLE) -> None:
    """Read a configuration file and show every setting with what it will be.

    Example: drupelet gateway check --config gateway.toml
    """
    import msgspec

    wanted = msgspec.to_builtins(settings.read(config))
    show(wanted, output=output, columns=("setting", "value"), rows=sorted(_flat(wanted).items()))


@app.command()
def status(
    config: ConfigPath = DEFAULT_CONFIG,
    socket: Annotated[
        Path | None, typer.Option("--socket", help="The control socket; without it, the config's.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the slots' children, the queue and what was counted since the gateway started.

    Example: drupelet gateway status --socket /var/lib/drupelet/control.sock -o json
    """
    with ControlClient(socket if socket is not None else settings.read(config).control) as client:
        said = client.ask(AskStatus())
    if not isinstance(said, GatewayStatus):
        raise GatewayUnreachable("the gateway gave another answer than its status", fix="update the older side")
    show(said, output=output, columns=("slot", "state", "release", "running", "memory MiB", "exits"), rows=_rows(said))
    if output is Format.TABLE:
        serving = said.serving.value if said.serving is not None else "none"
        say(
            f"{'ready' if said.ready else 'not ready'}; new conversations go to slot {serving}; "
            f"{said.running} running, {said.waiting} waiting; {said.requests} requests, {said.errors} errors"
        )


def _rows(said: GatewayStatus) -> list[tuple[object, ...]]:
    return [
        (
            child.slot.value,
            child.state,
            child.release,
            child.running,
            child.memory_bytes >> 20,
            ", ".join(f"{reason.value} {count}" for reason, count in child.exits.items()) or "none",
        )
        for child in said.children
    ]


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
