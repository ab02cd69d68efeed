"""`drupelet depot put` and `check`: blobs by their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.depot.places import Place, depot_at
from drupelet.cli.depot.serve import Folder
from drupelet.cli.output import Format, Output, show
from drupelet.cli.progress import Bar
from drupelet.depot.errors import BlobRefused
from drupelet.depot.files import FilesDepot
from drupelet.depot.ports import blob_of
from drupelet.durable import PosixDisk


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


def check(place: Place, output: Output = Format.TABLE) -> None:
    """Hash every blob of a depot again; exit code 7 if one is not what its name says.

    Example: drupelet depot check depot
    """
    store = depot_at(place)
    blobs = [(digest, e) for e in sorted(store.entries("blobs")) if (digest := blob_of(e.name)) is not None]
    total = sum(entry.size_bytes for _, entry in blobs)
    done, rows = 0, []
    with Bar() as bar:
        for digest, entry in blobs:
            hashing = hashlib.sha256()
            for chunk in store.stream(entry.name):
                hashing.update(chunk)
                done += len(chunk)
                bar.bytes_done(digest.hex[:12], done, total)
            good = hashing.hexdigest() == digest.hex
            rows.append((digest.text, *(("good", "") if good else ("bad", f"holds sha256:{hashing.hexdigest()}"))))
    value = [{"digest": digest, "state": state, "detail": detail} for digest, state, detail in rows]
    show(value, output=output, columns=("digest", "state", "detail"), rows=rows)
    if any(state == "bad" for _, state, _ in rows):
        raise typer.Exit(BlobRefused.exit_code)
