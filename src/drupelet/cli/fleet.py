"""`drupelet fleet`: the server itself."""

from __future__ import annotations

import getpass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show

app = typer.Typer()
token = typer.Typer(no_args_is_help=True)
app.add_typer(token, name="token", help="API tokens: create, list, revoke. Works on the database, without a server.")

DEFAULT_CONFIG = Path("/etc/drupelet/fleet.toml")
ConfigPath = Annotated[Path, typer.Option("-c", "--config", help="The server's configuration file.")]
DAY_MS = 86_400_000


class ScopeName(Enum):
    """What a token may do."""

    READ = "read"
    OPERATE = "operate"
    RELEASE = "release"
    ADMIN = "admin"


@app.command()
def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Serve devices, the API and the pages until SIGTERM.

    Example: drupelet fleet run --config /etc/drupelet/fleet.toml
    """
    from drupelet.cli.compose.fleet import run_fleet
    from drupelet.fleet.config import read_config

    run_fleet(
        read_config(config),
        on_listening=lambda host, port: say(f"fleet: listening on http://{host}:{port}, API at /docs"),
    )


@app.command()
def migrate(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Bring the database's schema up to date; `run` does it too.

    Example: drupelet fleet migrate --config /etc/drupelet/fleet.toml
    """
    from drupelet.cli.compose.fleet import open_database
    from drupelet.fleet.config import read_config

    open_database(read_config(config)).close()
    say("fleet: the schema is up to date")


@token.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the audit log calls its holder.")] = "operator",
    scope: Annotated[list[ScopeName] | None, typer.Option("--scope", help="May be given several times.")] = None,
    days: Annotated[float, typer.Option("--days", help="How long it is good for.", min=0.0001, max=3660)] = 90,
    config: ConfigPath = DEFAULT_CONFIG,
    output: Output = Format.TABLE,
) -> None:
    """Make a token and print it: it is shown this once. Without --scope it may read only.

    Example: drupelet fleet token create ci --scope read --scope release --days 30
    """
    from drupelet.cli.compose.fleet import clock_ms, open_database
    from drupelet.fleet.config import read_config
    from drupelet.fleet.credentials import Scope
    from drupelet.fleet.tokens import Tokens

    scopes = [Scope(wanted.value) for wanted in scope or [ScopeName.READ]]
    store = open_database(read_config(config))
    try:
        secret = Tokens(store, clock=clock_ms).create(
            name, scopes, by=f"{getpass.getuser()} on the server", lifetime_ms=int(days * DAY_MS)
        )
    finally:
        store.close()
    if output is Format.JSON:
        show({"name": name, "token": secret}, output=output, columns=(), rows=())
    else:
        print(secret)


@token.command("list")
def list_tokens(config: ConfigPath = DEFAULT_CONFIG, output: Output = Format.TABLE) -> None:
    """Show every token without its secret.

    Example: drupelet fleet token list -o json
    """
    from drupelet.cli.compose.fleet import clock_ms, open_database
    from drupelet.fleet.config import read_config
    from drupelet.fleet.read import Reader

    store = open_database(read_config(config))
    try:
        found = Reader(store, clock=clock_ms).tokens()
    finally:
        store.close()
    now = clock_ms()
    show(
        found, output=output, columns=("name", "scopes", "state"),
        rows=[
            (t.name, " ".join(t.scopes), "revoked" if t.revoked else "expired" if t.expires_at < now else "good")
            for t in found
        ],
    )  # fmt: skip


@token.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")], config: ConfigPath = DEFAULT_CONFIG) -> None:
    """End a token now.

    Example: drupelet fleet token revoke ci
    """
    from drupelet.cli.compose.fleet import clock_ms, open_database
    from drupelet.fleet.config import read_config
    from drupelet.fleet.tokens import Tokens

    store = open_database(read_config(config))
    try:
        Tokens(store, clock=clock_ms).revoke(name, by=f"{getpass.getuser()} on the server")
    finally:
        store.close()
    say(f"fleet: token {name} is revoked")
