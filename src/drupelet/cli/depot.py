"""`drupelet depot`: serve a folder of artifacts, put blobs in, check them, renew signatures."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.passphrase import PassphraseFile, passphrase
from drupelet.core.errors import BadInput, Conflict, NotFound
from drupelet.depot.errors import BlobRefused
from drupelet.depot.files import FilesDepot
from drupelet.durable import PosixDisk
from drupelet.trust.keys import KeyRing
from drupelet.trust.publisher import ImageRepository

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="The depot's folder.", show_default=False)]
CONNECTIONS_WAITING_MAX = 128


@app.command()
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


@app.command()
def put(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(help="Files to copy in.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Copy files into a depot under their digests.

    Example: drupelet depot put depot model.q4_0.gguf
    """
    depot = FilesDepot(PosixDisk(folder_mode=0o755), folder.absolute())
    found = [(file, *depot.put(file.absolute())) for file in files]
    value = [{"file": str(file), "digest": digest.text, "size_bytes": size} for file, digest, size in found]
    show(value, output=output, columns=("file", "digest", "bytes"), rows=found)


@app.command()
def check(folder: Folder, output: Output = Format.TABLE) -> None:
    """Hash every blob of a depot again; exit code 7 if one is not what its name says.

    Example: drupelet depot check depot
    """
    if not folder.is_dir():
        raise NotFound("there is no such folder", where=str(folder), fix="name the folder that holds blobs/")
    depot = FilesDepot(PosixDisk(), folder.absolute())
    rows = []
    for digest in depot.digests():
        try:
            depot.check(digest)
            rows.append((digest.text, "good", ""))
        except BlobRefused as error:
            rows.append((digest.text, "bad", error.what))
    value = [{"digest": digest, "state": state, "detail": detail} for digest, state, detail in rows]
    show(value, output=output, columns=("digest", "state", "detail"), rows=rows)
    if any(state == "bad" for _, state, _ in rows):
        raise typer.Exit(BlobRefused.exit_code)


@app.command()
def renew(
    folder: Folder,
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder.", show_default=False)],
    everything: Annotated[
        bool, typer.Option("--everything", help="Sign all roles, not the timestamp alone; needs their keys.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign a depot's metadata anew before they expire: the timestamp every few weeks, everything once a year.

    Example: drupelet depot renew depot --keys keys
    """
    ring = KeyRing(PosixDisk(), keys.absolute(), passphrase=passphrase(passphrase_file))
    disk = PosixDisk(folder_mode=0o755)
    images = ImageRepository(disk, folder.absolute(), ring, lambda: datetime.now(UTC))
    if everything:
        images.renew()
    else:
        images.refresh_timestamp()
    say(f"Signed {'all metadata' if everything else 'the timestamp'} of {folder} anew.")


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
