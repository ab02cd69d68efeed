"""How the verbs of `drupelet depot` are told where a depot is kept."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from drupelet.core.errors import BadInput, NotFound
from drupelet.depot.folder import FolderStore
from drupelet.depot.places import open_store
from drupelet.depot.ports import Store
from drupelet.durable import PosixDisk

Place = Annotated[
    str, typer.Argument(help="A folder, or s3://, gs:// or az:// and a bucket with a prefix.", show_default=False)
]
PlaceOrRepository = Annotated[
    str,
    typer.Argument(help="A folder, a bucket (s3://, gs://, az://), or oci://host/repository.", show_default=False),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="The image repository's root of trust, image-root.json.", show_default=False),
]
ROOT_BYTES_MAX = 64 * 1024


def root_in(path: Path | None) -> bytes:
    """Return the root of trust in a file the user named."""
    if path is None:
        raise BadInput("this needs the root of trust", fix="give --root with your keys' image-root.json")
    try:
        return PosixDisk().read(path.absolute(), bytes_max=ROOT_BYTES_MAX)
    except NotFound as error:
        raise NotFound("there is no such file", where=str(path), fix="give your keys' image-root.json") from error


def depot_at(place: str) -> Store:
    """Return the depot kept at `place`; a folder must be there."""
    store = open_store(place)
    if isinstance(store, FolderStore):
        store.require()
    return store


def this_process(doing: str) -> str:
    """Return what another publisher is told about who writes."""
    return f"{doing}, pid {os.getpid()} on {socket.gethostname()}"
