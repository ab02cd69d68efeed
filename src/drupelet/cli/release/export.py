"""`drupelet release export`: a release in another system's words."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from drupelet.ci.article import signed, small_manifest
from drupelet.cli.api import NO_SERVER, Server, Token
from drupelet.cli.output import Format, Output, show
from drupelet.cli.passphrase import PassphraseFile, open_ring
from drupelet.cli.release.source import Source, manifest_of
from drupelet.durable import PosixDisk

PUBLIC_KEY = "{family}.pub.pem"


class Dialect(Enum):
    """What to write."""

    ARTICLE = "article"


WRITERS = {Dialect.ARTICLE: small_manifest}
"""Dialect -> (manifest, variant) -> a flat document to sign."""


def export(
    release: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if it is not there.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring's folder: the family's key signs.")],
    dialect: Annotated[
        Dialect, typer.Option("--format", help="article: a small flat JSON a variant, signed.")
    ] = Dialect.ARTICLE,
    passphrase_file: PassphraseFile = None,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Write a small signed manifest for every variant (model, name, memory_mb, npu_required, quant, signature).

    The family's public key is written beside them, for whoever verifies.

    Example: drupelet release export build/1.2 --format article --out small --keys keys
    """
    manifest = manifest_of(release, server=server, token=token)
    disk = PosixDisk(folder_mode=0o755)
    ring = open_ring(keys, passphrase_file)
    key = ring.here(f"image/{manifest.family}")
    signer = ring.signer(key.name)
    made = {}
    for variant in manifest.variants:
        document = signed(WRITERS[dialect](manifest, variant), lambda data: bytes.fromhex(signer.sign(data).signature))
        made[out / f"{variant.name}.json"] = document
    for path, document in made.items():
        disk.replace(path.absolute(), (json.dumps(document, indent=2) + "\n").encode(), mode=0o644)
    disk.replace((out / PUBLIC_KEY.format(family=manifest.family)).absolute(), key.pem, mode=0o644)
    rows = [(path, *(document[field] for field in ("name", "quant", "memory_mb"))) for path, document in made.items()]
    value = {str(path): document for path, document in made.items()}
    show(value, output=output, columns=("file", "name", "quant", "memory MB"), rows=rows)
