"""`drupelet keys init`: make all keys of a fleet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from drupelet.cli.keys.show import Folder, print_ring
from drupelet.cli.output import Format, Output, say
from drupelet.cli.passphrase import PassphraseFile, passphrase
from drupelet.durable import PosixDisk
from drupelet.trust.keys import KeyRing


def init(
    folder: Folder,
    family: Annotated[list[str], typer.Option("--family", help="A family to sign for; may be given again.")],
    root_keys: Annotated[int, typer.Option("--root-keys", help="Root keys of each repository.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", help="Root keys that must sign a new root.")] = 2,
    family_keys: Annotated[int, typer.Option("--family-keys", help="Keys that sign for each family.")] = 1,
    family_threshold: Annotated[
        int, typer.Option("--family-threshold", help="How many of them must sign a release.")
    ] = 1,
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Make all keys of a fleet and the two roots that its devices trust.

    Example: drupelet keys init keys --family kiosk --family-keys 3 --family-threshold 2
    """
    ring = KeyRing.create(
        PosixDisk(),
        folder.absolute(),
        families=family,
        passphrase=passphrase(passphrase_file, twice=True),
        now=datetime.now(UTC),
        root_keys=root_keys,
        threshold=threshold,
        family_keys=family_keys,
        family_threshold=family_threshold,
    )
    print_ring(ring, output)
    say(
        f"Carry {folder}/private/image-root-*.pem and director-root-*.pem away, each to a place of its own.\n"
        f"The fleet server needs private/director-online.pem and both *-root.json, a device the *-root.json only."
    )
