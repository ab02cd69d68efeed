"""`drupelet forge image`: the container image that a device runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.progress import Bar
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.forge.runtime.image import build_image, write_context
from drupelet.forge.runtime.vouching import describe
from drupelet.forge.toolchain.venvs import cache_folder
from drupelet.wire.runtime import RUNTIME_NAME

DAY_S = 24 * 60 * 60


def image(
    out: Annotated[Path, typer.Option("--out", help="Folder for the image and what it was built from.")] = Path(
        "build/image"
    ),
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="Debian's name; may be repeated.", show_default="arm64 and amd64")
    ] = None,
    context_only: Annotated[
        bool, typer.Option("--context-only", help="Write OUT/context for docker buildx, and build nothing.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Build the runtime's multi-arch image: agent, gateway and a llama-server for each board. Nothing is signed yet.

    Every time in it is SOURCE_DATE_EPOCH, or else the beginning of this day (UTC): the same inputs, the same digest.

    Example: drupelet forge image --out build/image
    """
    folder, arches, epoch_s = out.absolute(), arch or ["arm64", "amd64"], epoch(os.environ, now_s=int(time.time()))
    cache = cache_folder().absolute()
    with Bar() as bar:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        payloads = write_context(folder, arches=arches, cache=cache, day=day, epoch_s=epoch_s, progress=bar.doing)
        if context_only:
            say(f"{folder / 'context'} is ready to be built.")
            return
        made = build_image(folder, arches=arches, store=cache / "containers", epoch_s=epoch_s, progress=bar.doing)
    boms = {one.target.arch: (folder / f"bom-{one.target.arch}.cdx.json").read_bytes() for one in payloads}
    manifest = describe(made, payloads, boms, created_at_ms=epoch_s * 1000)
    PosixDisk(folder_mode=0o755).replace(folder / RUNTIME_NAME, manifest, mode=0o644)
    found = {
        "index": made.index.text,
        "platforms": {one.platform: {"digest": one.digest.text, "bytes": one.size_bytes} for one in made.platforms},
    }
    rows = [(one.platform, f"{one.size_bytes / 1e6:.1f}", one.digest) for one in made.platforms]
    show(found, output=output, columns=("platform", "MB", "digest"), rows=rows)
    say(f"The image is in {made.layout}, its index is {made.index}; sign it: drupelet forge runtime publish {out}")


def epoch(environment: os._Environ[str] | dict[str, str], *, now_s: int) -> int:
    """Return the time to write everywhere, in seconds: SOURCE_DATE_EPOCH, or else midnight UTC."""
    said = environment.get("SOURCE_DATE_EPOCH", "")
    if not said:
        return now_s // DAY_S * DAY_S
    if not said.isascii() or not said.isdecimal() or len(said) > 11:
        raise BadInput(f"SOURCE_DATE_EPOCH is {said[:40]!r}", fix="set it to seconds since 1970, or to nothing")
    return int(said)
