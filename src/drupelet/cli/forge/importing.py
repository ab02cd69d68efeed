"""`drupelet forge import`: may this model, which somebody else made, be a variant?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.progress import Bar
from drupelet.durable import PosixDisk
from drupelet.durable.port import hash_file
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.imports import examine

COLUMNS = ("architecture", "quantization", "weights", "layers", "context", "vocabulary", "MiB", "sha256")


def import_model(
    model: Annotated[Path, typer.Argument(help="A GGUF file, or a folder with safetensors.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Check a model that was made elsewhere, every weight included, and print how a recipe takes it as a variant.

    Example: drupelet forge import models/qwen3-0.6b-q4_k_m.gguf
    """
    path = model.absolute()
    with Bar() as bar:
        if path.is_dir():
            checkpoint = open_checkpoint(path)
            for tensor in checkpoint.tensors.values():
                for _ in tensor.rows():
                    pass
            kind, architecture, shape = "q8_0", checkpoint.architecture, checkpoint.shape
            digest, weights = checkpoint.digest, checkpoint.parameters
            size = sum(file.stat().st_size for file in checkpoint.files)
        else:
            found = examine(path, progress=bar.bytes_done)
            kind, architecture, shape = found.quantization, found.architecture, found.shape
            digest, size = hash_file(PosixDisk(), path)
            weights = found.file.parameters
    value = {
        "architecture": architecture,
        "quantization": kind if path.is_file() else "safetensors",
        "weights": weights,
        "layers": shape.layers,
        "context": shape.context,
        "vocabulary": shape.vocab,
        "size_bytes": size,
        "sha256": digest.hex,
    }
    row = [*value.values()]
    row[6] = f"{size / 2**20:.1f}"
    show(value, output=output, columns=COLUMNS, rows=[tuple(row)])
    say(f'In the recipe:\n\n[[variants]]\nname = "{kind.replace("_", "-")}"\nquantization = "{kind}"\nfile = "{model}"')
