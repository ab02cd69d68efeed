"""`drupelet forge merge`: a LoRA adapter becomes part of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, show
from drupelet.cli.progress import Bar
from drupelet.durable import PosixDisk
from drupelet.forge.adapter import open_adapter
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.merge import merge as merge_into

BaseFolder = Annotated[Path, typer.Argument(help="The base, in Hugging Face's layout.", show_default=False)]


def merge(
    checkpoint: BaseFolder,
    adapter: Annotated[Path, typer.Option("--adapter", help="Folder with adapter_config.json.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the merged checkpoint.", show_default=False)],
    scale: Annotated[float, typer.Option("--scale", min=-16.0, max=16.0, help="How much of the adapter.")] = 1.0,
    output: Output = Format.TABLE,
) -> None:
    """Merge a LoRA adapter into its base: a checkpoint that can be built like any other.

    Example: drupelet forge merge models/kiosk/1.2 --adapter models/kiosk/lora-shop --out build/kiosk-shop
    """
    base, opened = open_checkpoint(checkpoint.absolute()), open_adapter(adapter.absolute())
    with Bar() as bar:
        merge_into(
            base,
            opened,
            out.absolute(),
            disk=PosixDisk(folder_mode=0o755),
            scale=scale,
            progress=bar.bytes_done,
        )
    merged = open_checkpoint(out.absolute())
    value = {
        "adapter": opened.digest.text,
        "base": base.digest.text,
        "matrices": len(opened.pairs),
        "merged": merged.digest.text,
        "scale": scale,
    }
    show(value, output=output, columns=tuple(value), rows=[tuple(value.values())])
