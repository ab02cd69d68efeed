"""Damage a small GGUF in every way there is, as long as is wanted: the reader accepts or refuses, and nothing else.

python -m tests.forge.fuzz_gguf --seconds 600 --seed 7
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gguf import GGMLQuantizationType as Kind

from drupelet.forge.errors import ModelFileBad
from drupelet.forge.imports import examine
from tests.fakes.rude_gguf import LIST, TEXT, RudeGguf, small_gguf

MEMORY_MIB_MAX = 1_500
_NUMBERS = (
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    255,
    1 << 16,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)

Bytes = Callable[[random.Random, bytearray], None]


def _flip(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)


def _number(draw: random.Random, data: bytearray) -> None:
    """Put an interesting number over 4 or 8 bytes, mostly in the table of contents."""
    value, form = draw.choice(_NUMBERS), draw.choice(("<I", "<Q"))
    at = draw.randrange(max(1, min(len(data) - 8, draw.choice((64, 1024, len(data))))))
    size = struct.calcsize(form)
    data[at : at + size] = struct.pack(form, value & ((1 << 8 * size) - 1))


def _cut(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data)) :]


def _insert(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.choice((1, 4, 8, 32, 100)))


def _repeat(draw: random.Random, data: bytearray) -> None:
    at, length = draw.randrange(len(data)), draw.randrange(1, 400)
    data[at:at] = data[at : at + length]


def _remove(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice((1, 4, 8, 100))]


BYTES: tuple[Bytes, ...] = (_flip, _flip, _number, _number, _number, _cut, _insert, _repeat, _remove)


def _part(draw: random.Random, file: RudeGguf) -> None:
    """Change one part of the structure and leave the rest sound."""
    what = draw.randrange(8)
    if what == 0:
        file.tensor_count = draw.choice(_NUMBERS)
    elif what == 1:
        file.setting_count = draw.choice(_NUMBERS)
    elif what == 2:
        name, kind, _ = draw.choice(file.settings)
        file.put(name, kind, draw.randbytes(draw.randrange(40)))
    elif what == 3:
        name, _, value = draw.choice(file.settings)
        if not isinstance(value, tuple):
            file.put(name, TEXT, str(value))
    elif what == 4:
        name, _, _ = draw.choice(file.settings)
        file.put(name, LIST, struct.pack("<IQ", draw.randrange(14), draw.choice(_NUMBERS)))
    else:
        piece = draw.choice(file.tensors)
        if what == 5:
            piece.sizes = [draw.choice(_NUMBERS) for _ in range(draw.randrange(6))]
        elif what == 6:
            piece.kind = draw.randrange(45)
        else:
            piece.offset = draw.choice((*_NUMBERS, piece.offset + 1, piece.offset - 32)) % (1 << 64)


def fuzz(*, seconds: float, seed: int) -> int:
    """Read damaged files for `seconds` and return how many. Anything but `ModelFileBad` gets out."""
    draw, begun, count, accepted = random.Random(seed), time.monotonic(), 0, 0
    kinds = (Kind.F16, Kind.Q8_0, Kind.Q4_0)
    with tempfile.TemporaryDirectory(prefix="drupelet-fuzz-") as scratch:
        path = Path(scratch) / "model.gguf"
        while time.monotonic() - begun < seconds:
            file = small_gguf(kind=kinds[count % 3], layers=1)
            for _ in range(draw.choice((0, 1, 1, 2))):
                _part(draw, file)
            data = bytearray(file.to_bytes())
            for _ in range(draw.choice((0, 1, 1, 2, 5))):
                if data:
                    draw.choice(BYTES)(draw, data)
            path.write_bytes(data)
            try:
                examine(path)
                accepted += 1
            except ModelFileBad:
                pass
            except BaseException as error:
                kept = Path(tempfile.gettempdir()) / f"drupelet-fuzz-{seed}-{count}.gguf"
                kept.write_bytes(data)
                raise AssertionError(f"file {count} of seed {seed} surprised the reader; kept as {kept}") from error
            count += 1
    if accepted == count:
        raise AssertionError("nothing was refused: the damage does not damage")
    return count


def main() -> None:
    """Fuzz as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB_MAX << 20, MEMORY_MIB_MAX << 20))
    count = fuzz(seconds=given.seconds, seed=given.seed)
    print(f"{count} damaged GGUF files in {given.seconds:g} s, seed {given.seed}: none surprised the reader")  # noqa: T201


if __name__ == "__main__":
    main()
