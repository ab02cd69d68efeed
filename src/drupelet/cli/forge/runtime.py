"""`drupelet forge runtime`: a built image goes into a registry, and its manifest is signed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import drupelet
from drupelet.cli.compose.registry import registry_at
from drupelet.cli.depot.move import repository_at
from drupelet.cli.output import Format, Output, show
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.cli.progress import Bar
from drupelet.depot.ports import TIMESTAMP
from drupelet.durable import PosixDisk
from drupelet.forge.runtime.vouching import open_built, sign
from drupelet.forge.runtime.vouching import push as push_image
from drupelet.trust.publisher import ImageRepository

app = typer.Typer(no_args_is_help=True)
BuiltFolder = Annotated[Path, typer.Argument(help="Folder that `drupelet forge image` wrote.", show_default=False)]


@app.command()
def publish(
    built: BuiltFolder,
    depot: Annotated[Path, typer.Option("--depot", help="The depot's folder; made if it is not there.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder; it must sign the family `runtime`.")],
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Sign the manifest of a built image: from now on devices take this image, by its digest, as that version.

    Example: drupelet forge runtime publish build/image --depot depot --keys keys
    """
    disk = PosixDisk(folder_mode=0o755)
    opened = open_built(built.absolute(), disk=disk)
    repository = ImageRepository(disk, depot.absolute(), open_ring(keys, passphrase_file), lambda: datetime.now(UTC))
    if not disk.exists(depot.absolute() / TIMESTAMP):
        repository.create()
    target = sign(opened, repository)
    value = {"path": target.path, "sha256": target.sha256.hex, "index": opened.manifest.index}
    show(value, output=output, columns=("target", "sha256", "image"), rows=[tuple(value.values())])


@app.command()
def push(
    built: BuiltFolder,
    to: Annotated[str, typer.Argument(help="The repository, such as oci://registry.lab/drupelet.", show_default=False)],
    tag: Annotated[str, typer.Option("--tag", help="The tag; it never changes what it names.")] = drupelet.__version__,
    output: Output = Format.TABLE,
) -> None:
    """Put a built image into a registry, with its bills of materials attached (OCI referrers).

    Example: drupelet forge runtime push build/image oci://registry.lab/drupelet
    """
    repository = repository_at(to)
    opened = open_built(built.absolute(), disk=PosixDisk())
    with Bar() as bar:
        digest = push_image(opened, registry_at(repository), tag=tag, progress=bar.doing)
    value = {"image": f"{repository}@{digest}", "tag": tag}
    show(value, output=output, columns=("image", "tag"), rows=[tuple(value.values())])
