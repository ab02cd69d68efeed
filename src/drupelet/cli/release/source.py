"""Where a release's manifest comes from: a package's folder, a manifest file, or the fleet server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from drupelet.cli.api import Api, release_path
from drupelet.core.errors import BadInput, NotFound
from drupelet.wire.codec import decode
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest

Source = Annotated[
    str, typer.Argument(help="A package's folder, a manifest file, or a release of the fleet such as kiosk/1.2.")
]


def as_file(text: str) -> Path | None:
    """Return the manifest file that `text` names, if it names a file or a package's folder."""
    path = Path(text)
    if path.is_dir():
        path /= MANIFEST_NAME
        if not path.is_file():
            raise NotFound(f"no {MANIFEST_NAME} in this folder", where=text, fix="drupelet forge build makes one")
    return path if path.is_file() else None


def of_fleet(text: str) -> str:
    """Return the path of a release in the fleet's API, or raise `BadInput`: no file and no release is called so."""
    try:
        return release_path(text)
    except BadInput as error:
        raise BadInput(
            "there is no such package or manifest, and it is not of the form family/version",
            where=text[:200],
            fix="for example kiosk/1.2",
        ) from error


def manifest_of(text: str, *, server: str, token: str) -> ReleaseManifest:
    """Return the manifest that `text` names. A file or folder of that name comes before the fleet's release.

    Nothing is verified here but the form: the fleet server has verified what it has, a file is what it is.
    """
    path = as_file(text)
    if path is not None:
        try:
            with path.open("rb") as file:
                data = file.read(ReleaseManifest.BYTES_MAX + 1)
        except OSError as error:
            raise NotFound(f"cannot be read: {error.strerror}", where=str(path)) from error
        return decode(ReleaseManifest, data, where=str(path))
    where = of_fleet(text)
    found = Api(server, token).get(f"{where}/manifest")
    return decode(ReleaseManifest, msgspec.json.encode(dict(found)), where=text)
