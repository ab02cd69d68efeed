"""`drupelet forge check`: is this checkpoint whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import say
from drupelet.cli.progress import Bar
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.tokenizers import open_tokenizer


def check(checkpoint: Annotated[Path, typer.Argument(help="Folder in Hugging Face's layout.")]) -> None:
    """Open a checkpoint, its tokenizer and every weight, and say what is wrong with it, if anything is.

    Example: drupelet forge check models/kiosk/1.2
    """
    with Bar() as bar:
        found = open_checkpoint(
            checkpoint.absolute(), on_hash=lambda done, total: bar.bytes_done("hashing", done, total)
        )
        total, done = sum(tensor.size_bytes for tensor in found.tensors.values()), 0
        for tensor in found.tensors.values():
            for rows in tensor.rows():
                done += len(rows) * tensor.row_bytes
                bar.bytes_done(f"reading {tensor.name}", done, total)
    if found.unknown is not None:
        say(f"{found.unknown.what}: {found.unknown.fix}.")
    else:
        vocabulary = open_tokenizer(found).vocabulary
        kind = "SentencePiece" if vocabulary.model == "llama" else f"byte-level BPE, cut like {vocabulary.pre}"
        say(f"{found.architecture} with a tokenizer of {len(vocabulary.pieces)} tokens: {kind}.")
    say(f"{len(found.tensors)} tensors, {found.parameters} weights, {found.digest}: whole and finite.")
