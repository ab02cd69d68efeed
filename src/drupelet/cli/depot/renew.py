"""`drupelet depot renew`: signatures that do not expire unnoticed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.depot.serve import Folder
from drupelet.cli.output import say
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.durable import PosixDisk
from drupelet.trust.publisher import ImageRepository


def renew(
    folder: Folder,
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder.", show_default=False)],
    everything: Annotated[
        bool, typer.Option("--everything", help="Sign all roles, not the timestamp alone; needs their keys.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign a depot's metadata anew before they expire: the timestamp every few weeks, everything once a year.

    Example: drupelet depot renew depot --keys keys
    """
    ring = open_ring(keys, passphrase_file)
    disk = PosixDisk(folder_mode=0o755)
    images = ImageRepository(disk, folder.absolute(), ring, lambda: datetime.now(UTC))
    if everything:
        images.renew()
    else:
        images.refresh_timestamp()
    say(f"Signed {'all metadata' if everything else 'the timestamp'} of {folder} anew.")
