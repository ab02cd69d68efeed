"""Change a tokenizer's file in every way there is: it is opened or refused, and the process lives on.

    python -m tests.forge.fuzz_tokenizer --seconds 600 --seed 7

The libraries that run tokenizers are written in Rust and C++, where a surprise can end the process. So what they are
given is made anew from what was checked; this holds it.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.tokenizers import open_tokenizer
from tests.fakes.tiny_models import write_tiny_model

BASES = ("qwen2", "llama3", "smollm", "llama-pieces", "llama")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1 << 31, 1 << 40, "", "x", "<unk>", [], {}, ["a", "b"]),
    {"type": "Sequence"},
    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": True},
    {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5},
)
TEXT = "Hello wörld <|im_end|> 123  x"


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something could be changed; of long lists and vocabularies the beginning only."""
    yield path
    if isinstance(value, dict):
        for key in list(value)[:12]:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 6)):
            yield from _paths(value[index], (*path, index))


def _change(draw: random.Random, fields: Any) -> None:
    path = draw.choice([path for path in _paths(fields) if path])
    for key in path[:-1]:
        fields = fields[key]
    fields[path[-1]] = copy.deepcopy(draw.choice(_VALUES))


def _damage(draw: random.Random, data: bytearray) -> None:
    for _ in range(draw.choice((1, 2, 5))):
        at = draw.randrange(len(data))
        match draw.randrange(3):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + 3] = draw.randbytes(draw.choice((0, 3, 9)))
            case _:
                del data[-draw.choice((1, 50, 500)) :]


def fuzz(*, seconds: float, seed: int) -> int:
    """Open changed tokenizers for `seconds` and return how many. Anything but `CheckpointBad` gets out."""
    draw, begun, count = random.Random(seed), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="drupelet-fuzz-") as scratch:
        folders = {name: write_tiny_model(Path(scratch) / name, name) for name in BASES}
        files = {
            name: folder / ("tokenizer.model" if name == "llama" else "tokenizer.json")
            for name, folder in folders.items()
        }
        sound = {name: file.read_bytes() for name, file in files.items()}
        while time.monotonic() - begun < seconds:
            name = draw.choice(BASES)
            data = bytearray(sound[name])
            if name == "llama" or draw.random() < 0.1:
                _damage(draw, data)
            else:
                fields = json.loads(data)
                for _ in range(draw.choice((1, 1, 2))):
                    _change(draw, fields)
                data = bytearray(json.dumps(fields).encode())
            files[name].write_bytes(data)
            try:
                open_tokenizer(open_checkpoint(folders[name])).encode(TEXT)
            except CheckpointBad:
                pass
            except BaseException as error:
                kept = Path(tempfile.gettempdir()) / f"drupelet-fuzz-{seed}-{count}-{files[name].name}"
                kept.write_bytes(data)
                raise AssertionError(f"file {count} of seed {seed} ({name}) surprised; kept as {kept}") from error
            count += 1
    return count


def main() -> None:
    """Fuzz as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    count = fuzz(seconds=given.seconds, seed=given.seed)
    print(f"{count} changed tokenizers in {given.seconds:g} s, seed {given.seed}: none surprised")  # noqa: T201


if __name__ == "__main__":
    main()
