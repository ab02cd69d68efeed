"""`drupelet keys sign`: one more signature on a file that waits for several."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, print_json, say
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.trust.sittings import Sitting, countersign, look

LINES_SHOWN_MAX = 40


def sign(
    files: Annotated[list[Path], typer.Argument(help="Files that publish or rotate left in pending/.")],
    keys: Annotated[Path, typer.Option("--keys", help="Your key ring's folder.", show_default=False)],
    key: Annotated[list[str] | None, typer.Option("--key", help="Sign with this key; else with all here.")] = None,
    role: Annotated[str, typer.Option("--role", help="What it is, if the file's name does not say.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read what it says.")] = False,
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what waits for signatures, and add yours. Needs neither the depot nor a network.

    Example: drupelet keys sign pending/kiosk.json --keys keys --key image-family-kiosk-2
    """
    disk, ring = PosixDisk(), open_ring(keys, passphrase_file)
    done = []
    for file in files:
        sitting = look(disk, file.absolute(), keys=ring, now=datetime.now(UTC), role=role)
        _read_out(sitting)
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("nobody is here to confirm", where=str(file), fix="read it, then give --yes")
            typer.confirm("Sign this?", abort=True, err=True)
        signed = countersign(disk, sitting, keys=ring, names=key or ())
        done.append({"file": str(file), "role": sitting.role, "version": sitting.version, "signed": signed})
        say(f"{file}: signed by {', '.join((*sitting.signed, *signed))}.")
    if output is Format.JSON:
        print_json(done)


def _read_out(sitting: Sitting) -> None:
    say(f"{sitting.path.name}: {sitting.role}, version {sitting.version}, expires {sitting.expires:%Y-%m-%d}")
    for line in sitting.says[-LINES_SHOWN_MAX:]:
        say(f"  {line}")
    if len(sitting.says) > LINES_SHOWN_MAX:
        say(f"  and {len(sitting.says) - LINES_SHOWN_MAX} older")
    say(f"  signed by {', '.join(sitting.signed) or 'nobody yet'}")
