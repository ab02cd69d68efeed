"""`drupelet forge mender`: a signed release as a Mender artifact."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, show
from drupelet.core.errors import NotFound
from drupelet.core.names import ReleaseId
from drupelet.drivers.mender_artifact import DEVICE_TYPES, collect, write
from drupelet.durable import PosixDisk

ROOT_BYTES_MAX = 512 * 1024


def mender(
    release: Annotated[str, typer.Argument(help="Family and version, such as kiosk/1.2.")],
    depot: Annotated[Path, typer.Option("--depot", help="The depot's folder.", show_default=False)],
    root: Annotated[Path, typer.Option("--root", help="image-root.json of your keys.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The artifact to write.", show_default=False)],
    device_type: Annotated[
        list[str] | None, typer.Option("--device-type", help="As Mender calls it; may be given again.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only these variants; else all of the release.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Mender's own signing key, if you use one.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Write a signed release as a Mender artifact for our update module, verified as a device will verify it.

    Example: drupelet forge mender kiosk/1.2 --depot depot --root keys/image-root.json --out kiosk-1.2.mender
    """
    disk = PosixDisk()
    try:
        trusted = disk.read(root.absolute(), bytes_max=ROOT_BYTES_MAX)
    except NotFound as error:
        fix = "give the image-root.json of your key ring"
        raise NotFound("there is no root of trust", where=str(root), fix=fix) from error
    contents = collect(
        ReleaseId.parse(release),
        depot=depot.absolute(),
        root=trusted,
        variants=tuple(variant or ()),
        disk=disk,
        now=datetime.now(UTC),
    )
    write(contents, out.absolute(), device_types=tuple(device_type or DEVICE_TYPES), key=key)
    value = {"artifact": str(out), "artifact_name": contents.artifact_name, "size_bytes": out.stat().st_size}
    show(value, output=output, columns=("artifact", "name", "bytes"), rows=[tuple(value.values())])
