"""`drupelet depot push`, `pull` and `copy`: depots and releases from here to there."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.compose.collect import vouched_in
from drupelet.cli.compose.registry import push_from_depot, registry_at
from drupelet.cli.depot.places import Place, PlaceOrRepository, Root, depot_at, root_in, this_process
from drupelet.cli.output import Format, Output, show
from drupelet.cli.progress import Bar
from drupelet.core.errors import BadInput
from drupelet.core.names import ReleaseId
from drupelet.depot.oci import Reference, Repository
from drupelet.depot.oci.credentials import refuse_one_password_for_two
from drupelet.depot.oci.modelpack import Layout
from drupelet.depot.oci.reference import is_registry
from drupelet.depot.oci.release import Pushed, copy_release, pull_release
from drupelet.depot.places import is_bucket, open_store
from drupelet.depot.transfer import copy_depot
from drupelet.durable import PosixDisk

Destination = Annotated[
    str, typer.Argument(help="Where to, in the same way; made if it is not there.", show_default=False)
]
LayoutOption = Annotated[
    Layout, typer.Option("--layout", help="Media types in a registry: what ModelPack readers take, or llama.cpp.")
]


def push(
    depot: Place,
    to: Destination,
    release: Annotated[
        str, typer.Option("--release", help="For a registry: which release, such as kiosk/1.2.", show_default=False)
    ] = "",
    root: Root = None,
    layout: LayoutOption = Layout.MODELPACK,
    output: Output = Format.TABLE,
) -> None:
    """Bring a bucket or folder up to date with a depot, or put one of its releases into a registry.

    Nothing there is changed or removed. Stopped in the middle it changes nothing for readers; run it again to go on.

    Example: drupelet depot push depot s3://models/depot
    """
    if not is_registry(to):
        _copy_depot(depot, to, output=output, doing="drupelet depot push")
        return
    repository = repository_at(to)
    if not release:
        raise BadInput("a registry takes one release at a time", fix="name it: --release kiosk/1.2")
    store = depot_at(depot)
    vouched = vouched_in(store, root=root_in(root), now=datetime.now(UTC))
    with Bar() as bar:
        pushed = push_from_depot(
            store,
            ReleaseId.parse(release),
            registry_at(repository),
            vouched=vouched,
            layout=layout,
            progress=bar.bytes_done,
        )
    show_pushed(pushed, str(repository), output)


def pull(
    place: PlaceOrRepository,
    to: Destination,
    variant: Annotated[
        str, typer.Option("--variant", help="From a registry: this variant only.", show_default=False)
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Bring a local folder up to date with a depot in a bucket, or fetch a release's files from a registry.

    What was cut is resumed, and everything is compared with its digest. Who made it, `drupelet verify` says.

    Example: drupelet depot pull oci://registry.shop.example/models/kiosk:1.2 build/1.2 --variant q4_0
    """
    if is_bucket(to) or is_registry(to):
        raise BadInput(f"{to!r} is not a local folder", fix="use: drupelet depot copy FROM TO")
    if not is_registry(place):
        _copy_depot(place, to, output=output, doing="drupelet depot pull")
        return
    reference = Reference.parse(place)
    with Bar() as bar:
        found = pull_release(
            registry_at(reference.repository),
            reference.name,
            Path(to).absolute(),
            disk=PosixDisk(folder_mode=0o755),
            variant=variant,
            progress=bar.bytes_done,
        )
    rows = [(path.name, path.stat().st_size) for path in found]
    value = [{"file": called, "bytes": size} for called, size in rows]
    show(value, output=output, columns=("file", "bytes"), rows=rows)


def copy(place: PlaceOrRepository, to: Destination, output: Output = Format.TABLE) -> None:
    """Bring one depot up to date with another, or take a release from one repository to another.

    Within one registry nothing is sent: blobs are mounted. That is how a release is promoted.

    Example: drupelet depot copy oci://registry.shop.example/test/kiosk:1.2 oci://registry.shop.example/models/kiosk
    """
    if is_registry(place) != is_registry(to):
        raise BadInput("one is a registry and the other is not", fix="use: drupelet depot push, or pull")
    if not is_registry(to):
        _copy_depot(place, to, output=output, doing="drupelet depot copy")
        return
    source, destination = Reference.parse(place), Reference.parse(to)
    refuse_one_password_for_two(source.repository.host, destination.repository.host, environment=os.environ)
    tag = destination.tag or source.tag
    with Bar() as bar:
        digest = copy_release(
            registry_at(source.repository),
            registry_at(destination.repository),
            source.name,
            tag=tag,
            progress=bar.bytes_done,
        )
    row = (f"{destination.repository}:{tag}" if tag else str(destination.repository), digest.text)
    show({"to": row[0], "digest": row[1]}, output=output, columns=("to", "digest"), rows=[row])


def show_pushed(pushed: Pushed, repository: str, output: Format) -> None:
    """Print what a release is called in a registry."""
    rows = [(f"{repository}:{tag}", digest.text) for tag, digest in pushed.tags.items()]
    value = {"repository": repository, "tags": {tag: digest.text for tag, digest in pushed.tags.items()}}
    show(value | {"beside": pushed.files}, output=output, columns=("reference", "digest"), rows=rows)


def repository_at(text: str) -> Repository:
    """Return the repository a user named; the version is the release's own."""
    reference = Reference.parse(text)
    if reference.tag or reference.digest is not None:
        raise BadInput(
            f"{text[:200]!r} names a version; the release has one", fix=f"give the repository: {reference.repository}"
        )
    return reference.repository


def _copy_depot(place: str, to: str, *, output: Format, doing: str) -> None:
    source, destination = depot_at(place), open_store(to)
    with Bar() as bar:
        copied = copy_depot(source, destination, holder=this_process(doing), progress=bar.bytes_done)
    value = {"to": destination.where, "files": copied.files, "bytes": copied.size_bytes, "there": copied.there}
    row = (destination.where, copied.files, copied.size_bytes, copied.there)
    show(value, output=output, columns=("to", "files sent", "bytes sent", "files there before"), rows=[row])
