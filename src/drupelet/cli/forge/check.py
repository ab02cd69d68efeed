"""`drupelet forge check`: is this checkpoint whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import say
from drupelet.forge.checkpoint import open_checkpoint


def check(checkpoint: Annotated[Path, typer.Argument(help="Folder in Hugging Face's layout.")]) -> None:
    """Open a checkpoint, read every weight and say what is wrong with it, if anything is.

    Example: drupelet forge check models/kiosk/1.2
    """
    found = open_checkpoint(checkpoint.absolute())
    for tensor in found.tensors.values():
        for _ in tensor.rows():
            pass
    if found.unknown is not None:
        say(f"{found.unknown.what}: {found.unknown.fix}.")
    say(f"{len(found.tensors)} tensors, {found.parameters} weights, {found.digest}: whole and finite.")
