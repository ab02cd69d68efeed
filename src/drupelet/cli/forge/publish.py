"""`drupelet forge publish`: a package becomes a signed release in a depot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, show
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.depot.files import FilesDepot
from drupelet.durable import PosixDisk
from drupelet.forge.publish import publish as publish_package
from drupelet.trust.publisher import ImageRepository

PackageFolder = Annotated[Path, typer.Argument(help="Folder that `drupelet forge build` wrote.", show_default=False)]


def publish(
    package: PackageFolder,
    depot: Annotated[Path, typer.Option("--depot", help="The depot's folder; made if it is not there.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder.")],
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Put a package's files into a depot and sign its manifest.

    Example: drupelet forge publish build/1.2 --depot depot --keys keys
    """
    disk, folder = PosixDisk(folder_mode=0o755), depot.absolute()
    ring = open_ring(keys, passphrase_file)
    repository = ImageRepository(disk, folder, ring, lambda: datetime.now(UTC))
    if not disk.exists(folder / "metadata" / "timestamp.json"):
        repository.create()
    target = publish_package(package.absolute(), disk=disk, depot=FilesDepot(disk, folder), repository=repository)
    value = {"path": target.path, "length": target.length, "sha256": target.sha256.hex}
    show(value, output=output, columns=("target", "bytes", "sha256"), rows=[tuple(value.values())])
