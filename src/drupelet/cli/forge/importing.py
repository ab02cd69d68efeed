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
from drupelet.forge.hef import read_hef
from drupelet.forge.imports import examine

HEF_COLUMNS = ("runs on", "compiler", "needs HailoRT", "networks", "MiB", "sha256")
COLUMNS = ("architecture", "quantization", "weights", "layers", "context", "vocabulary", "MiB", "sha256")


def import_model(
    model: Annotated[
        Path, typer.Argument(help="A GGUF or HEF file, or a folder with safetensors.", show_default=False)
    ],
    output: Output = Format.TABLE,
) -> None:
    """Check a model that was made elsewhere, every weight included, and print how a recipe takes it as a variant.

    Example: drupelet forge import models/qwen3-0.6b-q4_k_m.gguf
    """
    path = model.absolute()
    if path.suffix == ".hef":
        _show_hef(path, output, given=model)
        return
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


def _show_hef(path: Path, output: Format, *, given: Path) -> None:
    """Print what a compiled file says of itself. What it does not say, the recipe must."""
    found = read_hef(path)
    digest, size = hash_file(PosixDisk(), path)
    series = ".".join(found.compiler.split(".")[:2])
    value = {
        "chips": list(found.chips),
        "compiler": found.compiler,
        "runtime": series if found.strict else "",
        "networks": found.networks,
        "size_bytes": size,
        "sha256": digest.hex,
    }
    runtime = f"{series}, exactly" if found.strict else "not said"
    row = (", ".join(found.chips), found.compiler, runtime, found.networks, f"{size / 2**20:.1f}", digest.hex)
    show(value, output=output, columns=HEF_COLUMNS, rows=[row])
    lock = "" if found.strict else '\nlock = { driver = "hailo 4.20.0" }  # the one it was tried with'
    say(
        f'In the recipe:\n\n[[variants]]\nname = "npu"\nfile_format = "hef"\nquantization = "w4a8"\nfile = "{given}"'
        f'\nmemory_bytes = 2_000_000_000  # on the device\nevaluated_elsewhere = "where, when, how well"{lock}'
    )
