"""`drupelet depot push`, `pull` and `copy`: a whole depot from here to there."""

from __future__ import annotations

from typing import Annotated

import typer

from drupelet.cli.depot.places import Place, depot_at, this_process
from drupelet.cli.output import Format, Output, show
from drupelet.cli.progress import Bar
from drupelet.core.errors import BadInput
from drupelet.depot.places import is_bucket, open_store
from drupelet.depot.transfer import copy_depot

Destination = Annotated[
    str, typer.Argument(help="Where to, in the same way; made if it is not there.", show_default=False)
]


def push(depot: Place, to: Destination, output: Output = Format.TABLE) -> None:
    """Bring a bucket or folder up to date with a depot: what is missing is sent, the timestamp last.

    Nothing there is changed or removed. Stopped in the middle it changes nothing for devices; run it again to go on.

    Example: drupelet depot push depot s3://models/depot
    """
    _copy(depot, to, output=output, doing="drupelet depot push")


def pull(place: Place, to: Destination, output: Output = Format.TABLE) -> None:
    """Bring a local folder up to date with a depot in a bucket; large files are resumed.

    Example: drupelet depot pull s3://models/depot depot
    """
    if is_bucket(to):
        raise BadInput(f"{to!r} is not a local folder", fix="use: drupelet depot copy FROM TO")
    _copy(place, to, output=output, doing="drupelet depot pull")


def copy(place: Place, to: Destination, output: Output = Format.TABLE) -> None:
    """Bring one depot up to date with another, wherever they are kept.

    Example: drupelet depot copy s3://models/depot gs://models-eu/depot
    """
    _copy(place, to, output=output, doing="drupelet depot copy")


def _copy(place: str, to: str, *, output: Format, doing: str) -> None:
    source, destination = depot_at(place), open_store(to)
    with Bar() as bar:
        copied = copy_depot(source, destination, holder=this_process(doing), progress=bar.bytes_done)
    value = {"to": destination.where, "files": copied.files, "bytes": copied.size_bytes, "there": copied.there}
    row = (destination.where, copied.files, copied.size_bytes, copied.there)
    show(value, output=output, columns=("to", "files sent", "bytes sent", "files there before"), rows=[row])
