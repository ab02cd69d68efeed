"""`drupelet forge publish`: a package becomes a signed release in a depot, and in a registry where one is named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.compose.collect import vouched_in
from drupelet.cli.compose.registry import push_from_depot, registry_at
from drupelet.cli.depot.move import LayoutOption, repository_at
from drupelet.cli.depot.places import this_process
from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.cli.progress import Bar
from drupelet.depot.files import FilesDepot
from drupelet.depot.folder import FolderStore
from drupelet.depot.oci.modelpack import Layout
from drupelet.depot.places import folder_at, is_bucket, open_store
from drupelet.depot.ports import TIMESTAMP
from drupelet.depot.transfer import Progress, copy_depot
from drupelet.durable import PosixDisk
from drupelet.forge.publish import publish as publish_package
from drupelet.forge.runtime.vouching import signed_runtimes
from drupelet.trust.publisher import ImageRepository
from drupelet.wire.manifest import release_of_path

PackageFolder = Annotated[Path, typer.Argument(help="Folder that `drupelet forge build` wrote.", show_default=False)]


def publish(
    package: PackageFolder,
    depot: Annotated[
        str,
        typer.Option(
            "--depot", help="The depot: a folder, made if it is not there, or a bucket (s3://, gs://, az://)."
        ),
    ],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder.")],
    oci: Annotated[
        str, typer.Option("--oci", help="Also put it into this repository, oci://host/name.", show_default=False)
    ] = "",
    layout: LayoutOption = Layout.MODELPACK,
    passphrase_file: PassphraseFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Put a package's files into a depot and sign its manifest.

    Example: drupelet forge publish build/1.2 --depot depot --keys keys
    """
    repository = repository_at(oci) if oci else None
    disk = PosixDisk(folder_mode=0o755)
    ring = open_ring(keys, passphrase_file)
    with Bar() as bar, _folder_of(depot, package.absolute(), bar.bytes_done) as folder:
        images = ImageRepository(disk, folder, ring, lambda: datetime.now(UTC))
        if not disk.exists(folder / TIMESTAMP):
            images.create()
        target = publish_package(
            package.absolute(),
            disk=disk,
            depot=FilesDepot(disk, folder),
            repository=images,
            keys=ring,
            runtimes=signed_runtimes(images, disk=disk, depot=folder),
        )
        if is_bucket(depot):
            holder = this_process("drupelet forge publish")
            copy_depot(FolderStore(disk, folder), open_store(depot), holder=holder, progress=bar.bytes_done)
        if repository is not None:
            store = FolderStore(disk, folder)
            pushed = push_from_depot(
                store,
                release_of_path(target.path),
                registry_at(repository),
                vouched=vouched_in(store, root=ring.image_root, now=datetime.now(UTC)),
                layout=layout,
                progress=bar.bytes_done,
            )
            say(f"{repository}: {', '.join(pushed.tags)}")
    value = {"path": target.path, "length": target.length, "sha256": target.sha256.hex}
    show(value, output=output, columns=("target", "bytes", "sha256"), rows=[tuple(value.values())])


@contextmanager
def _folder_of(depot: str, package: Path, progress: Progress) -> Iterator[Path]:
    """Yield the depot's folder; for a bucket a temporary one beside the package's files, with what is signed there."""
    if not is_bucket(depot):
        yield folder_at(depot)
        return
    with tempfile.TemporaryDirectory(prefix=".depot-", dir=package) as scratch:
        store = open_store(depot)
        folder = Path(scratch)
        if store.entry(TIMESTAMP) is not None:
            disk = PosixDisk(folder_mode=0o755)
            holder = this_process("drupelet forge publish")
            copy_depot(store, FolderStore(disk, folder), holder=holder, progress=progress, blobs=False)
        yield folder
