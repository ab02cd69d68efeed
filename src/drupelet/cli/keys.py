"""`drupelet keys`: make signing keys and show their public halves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.passphrase import PassphraseFile, passphrase
from drupelet.durable import PosixDisk
from drupelet.trust.keys import KeyRing, KeyState

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="The key ring's folder.", show_default=False)]
COLUMNS = ("key", "repository", "signs", "key id", "private key")
SAYS = {KeyState.HERE: "here", KeyState.AWAY: "not here", KeyState.UNSAFE: "exposed"}


@app.command()
def init(
    folder: Folder,
    family: Annotated[list[str], typer.Option("--family", help="A family to sign for; may be given again.")],
    root_keys: Annotated[int, typer.Option("--root-keys", help="Root keys of each repository.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", help="Root keys that must sign a new root.")] = 2,
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make all keys of a fleet and the two roots that its devices trust.

    Example: drupelet keys init keys --family kiosk
    """
    ring = KeyRing.create(
        PosixDisk(),
        folder.absolute(),
        families=family,
        passphrase=passphrase(passphrase_file, twice=True),
        now=datetime.now(UTC),
        root_keys=root_keys,
        threshold=threshold,
    )
    _show(ring, output)
    say(
        f"Carry {folder}/private/image-root-*.pem and director-root-*.pem away, each to a place of its own.\n"
        f"The fleet server needs private/director-online.pem and both *-root.json, a device the *-root.json only."
    )


@app.command("show")
def show_keys(folder: Folder, output: Output = Format.TABLE) -> None:
    """Show which key signs what, and which private keys lie here. Needs no passphrase.

    Example: drupelet keys show keys -o json
    """
    _show(KeyRing(PosixDisk(), folder.absolute(), passphrase=lambda: ""), output)


def _show(ring: KeyRing, output: Format) -> None:
    states = {key.name: ring.state(key.name) for key in ring.info.keys}
    value: dict[str, Any] = msgspec.to_builtins(ring.info)
    for key in value["keys"]:
        key["private_key"] = states[key["name"]].value
    rows = [
        (key.name, key.repository, ", ".join(key.roles), key.keyid[:16], SAYS[states[key.name]])
        for key in ring.info.keys
    ]
    show(value, output=output, columns=COLUMNS, rows=rows)
