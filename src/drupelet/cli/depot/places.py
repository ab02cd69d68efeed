"""How the verbs of `drupelet depot` are told where a depot is kept."""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from drupelet.depot.folder import FolderStore
from drupelet.depot.places import open_store
from drupelet.depot.ports import Store

Place = Annotated[
    str, typer.Argument(help="A folder, or s3://, gs:// or az:// and a bucket with a prefix.", show_default=False)
]


def depot_at(place: str) -> Store:
    """Return the depot kept at `place`; a folder must be there."""
    store = open_store(place)
    if isinstance(store, FolderStore):
        store.require()
    return store


def this_process(doing: str) -> str:
    """Return what another publisher is told about who writes."""
    return f"{doing}, pid {os.getpid()} on {socket.gethostname()}"
