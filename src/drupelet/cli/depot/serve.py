"""`drupelet depot serve`: a folder of artifacts over HTTP."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import say
from drupelet.core.errors import BadInput, Conflict, NotFound

Folder = Annotated[Path, typer.Argument(help="The depot's folder.", show_default=False)]
CONNECTIONS_WAITING_MAX = 128


def serve(
    folder: Folder,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8090,
) -> None:
    """Serve a depot over HTTP, read-only, until interrupted.

    Example: drupelet depot serve depot --host 0.0.0.0 --port 8090
    """
    import uvicorn

    from drupelet.depot.serve import depot_app

    if not folder.is_dir():
        raise NotFound("there is no such folder", where=str(folder), fix="publish a release into it first")
    with _listen(host, port) as listening:
        say(f"Serving {folder} at http://{host}:{listening.getsockname()[1]}")
        config = uvicorn.Config(depot_app(folder.absolute()), log_level="warning", access_log=False, lifespan="off")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise `Conflict` if the port is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadInput(f"{host!r} is not an address of this machine", fix="for example 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(CONNECTIONS_WAITING_MAX)
    except OSError as error:
        listening.close()
        words = os.strerror(error.errno or 0)
        fix = "stop what uses it, or give another --port" if error.errno == errno.EADDRINUSE else "check --host"
        raise Conflict(f"cannot listen: {words}", where=f"{host}:{port}", fix=fix) from error
    return listening
