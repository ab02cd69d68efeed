"""Convert a checkpoint to one GGUF file: a thin wrapper over Drupelet's converter.

python tools/convert_model.py --input path/to/checkpoint --output models/model_v1.gguf --quantize=4

Beside the file lies `<file>.json`, which says what it was made from; the validator reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.core.names import ReleaseId, Version, family
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.formats import FORMATS
from drupelet.forge.recipe import load_recipe

BITS = {"4": "q4_0", "8": "q8_0", "16": "f16"}


def convert(source: Path, out: Path, quantization: str, recipe: Path) -> None:
    """Write `out` whole or not at all, in a quantization that the recipe ships."""
    known, _ = load_recipe(recipe)
    shipped = [variant.quantization for variant in known.variants]
    if quantization not in shipped:
        raise BadInput(f"{recipe} ships no {quantization}", where="--quantize", fix=f"it has {', '.join(shipped)}")
    # What is built is VERSION, or the number of the run; the file names its release in its own metadata.
    version = os.environ.get("VERSION") or f"0.0.{os.environ.get('GITHUB_RUN_NUMBER', '0')}"
    release = ReleaseId(family(known.family), Version.parse(version))
    disk = PosixDisk(folder_mode=0o755)
    made = FORMATS["gguf"].write(
        open_checkpoint(source.absolute()),
        out.absolute(),
        quantization=quantization,
        model_name=str(release),
        disk=disk,
        progress=lambda _doing, _done, _total: None,
    )
    notes = {"checkpoint": str(source), "version": version, "digest": made.digest.text}
    disk.replace(out.with_name(out.name + ".json").absolute(), json.dumps(notes, indent=1).encode(), mode=0o644)
    print(f"{out}: {quantization}, {made.digest}")


def main() -> int:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="checkpoint in Hugging Face's layout")
    parser.add_argument("--output", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--quantize", default="4", help="bits a weight (4, 8, 16), or a name such as q4_0")
    parser.add_argument("--recipe", type=Path, default=Path("recipe.toml"))
    given = parser.parse_args()
    try:
        convert(given.input, given.output, BITS.get(given.quantize, given.quantize), given.recipe)
    except DrupeletError as error:
        print(f"convert_model: {error.line()}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
