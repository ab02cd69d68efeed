"""`drupelet depot ls`, `gc`, `unlock` and `link`: what lies in a depot, and what need not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from drupelet.cli.compose.collect import collect, vouched_in
from drupelet.cli.compose.registry import registry_at
from drupelet.cli.depot.places import Place, PlaceOrRepository, Root, depot_at, root_in, this_process
from drupelet.cli.output import Format, Output, say, show
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.depot.oci import Reference
from drupelet.depot.oci.reference import is_registry
from drupelet.depot.ports import blob_path
from drupelet.depot.sweep import KEEP, size_of


def ls(place: PlaceOrRepository, root: Root = None, output: Output = Format.TABLE) -> None:
    """List the releases a depot's signatures vouch for, or the versions in a registry's repository.

    Example: drupelet depot ls s3://models/depot --root keys/image-root.json
    """
    if is_registry(place):
        tags = registry_at(Reference.parse(place).repository).tags()
        show([{"version": tag} for tag in tags], output=output, columns=("version",), rows=[(tag,) for tag in tags])
        return
    store = depot_at(place)
    found = vouched_in(store, root=root_in(root), now=datetime.now(UTC))
    value = [
        {
            "release": one.release.path,
            "manifest": one.manifest.sha256.text if one.manifest else None,
            "files": [target.path for target in one.targets],
        }
        for one in found
    ]
    rows = [(str(one.release), one.manifest.sha256.text if one.manifest else "", len(one.targets)) for one in found]
    show(value, output=output, columns=("release", "manifest", "signed files"), rows=rows)


def gc(
    place: Place,
    root: Root = None,
    keep_days: Annotated[
        float, typer.Option("--keep-days", help="Leave what is younger, whatever it is.", min=0, max=3650)
    ] = KEEP.days,
    revoked: Annotated[
        bool, typer.Option("--revoked", help="Also remove what only revoked releases name, and their manifests.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Remove blobs that no manifest names. What a signed manifest names is never removed.

    A depot whose signatures do not verify with the root, or have expired, is left alone: exit code 7.

    Example: drupelet depot gc depot --root keys/image-root.json --dry-run
    """
    store = depot_at(place)
    removed = collect(
        store,
        root=root_in(root),
        now=datetime.now(UTC),
        keep=timedelta(days=keep_days),
        revoked=revoked,
        dry_run=dry_run,
        holder=this_process("drupelet depot gc"),
    )
    value = [{"file": entry.name, "bytes": entry.size_bytes, "removed": not dry_run} for entry in removed]
    rows = [(entry.name, entry.size_bytes, f"{entry.modified:%Y-%m-%d}") for entry in removed]
    show(value, output=output, columns=("file", "bytes", "written"), rows=rows)
    say(f"{len(removed)} files, {size_of(removed)} bytes {'would be' if dry_run else 'were'} removed.")


def unlock(place: Place) -> None:
    """Remove the mark of a publisher that died while it wrote to a bucket. Be sure that it did.

    Example: drupelet depot unlock s3://models/depot
    """
    release = getattr(depot_at(place), "unlock", None)
    if release is None:
        raise BadInput("a folder's lock goes with the process that held it", where=place, fix="nothing is to be done")
    say("Unlocked." if release() else "It was not locked.")


def link(
    place: Place,
    digest: Annotated[str, typer.Argument(help="The blob, as sha256:<64 hex digits>.", show_default=False)],
    hours: Annotated[float, typer.Option("--hours", help="How long it is good for.", min=0.01, max=168)] = 1.0,
) -> None:
    """Print an address that lets whoever has it read one blob of a private bucket for a while.

    Example: drupelet depot link s3://models/depot sha256:9f86d081... --hours 2
    """
    sign = getattr(depot_at(place), "link", None)
    if sign is None:
        raise BadInput("a folder has no such addresses", where=place, fix="serve it: drupelet depot serve")
    print(sign(blob_path(Digest.parse(digest)), lifetime=timedelta(hours=hours)))
