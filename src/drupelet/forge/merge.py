"""An adapter merged into its base: a new checkpoint, written tensor by tensor, that needs no adapter any more.

W + scale * B @ A is computed in float32, some rows at a time, and stored in the base's own type, so memory stays at a
piece of one matrix whatever the model's size. Same base, same adapter: same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupelet.core.errors import Conflict
from drupelet.durable.port import Disk, DiskFull
from drupelet.forge.adapter import Adapter, check_base
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import AdapterBad
from drupelet.forge.formats.port import Progress
from drupelet.forge.safetensors import Tensor

_F16_MAX = float(np.finfo(np.float16).max)


def merge(
    base: Checkpoint,
    adapter: Adapter,
    out: Path,
    *,
    disk: Disk,
    scale: float = 1.0,
    progress: Progress = lambda _doing, _done, _total: None,
) -> Path:
    """Write `base` with `adapter` merged into it to the folder `out`, which appears whole or not at all.

    Raises `AdapterBad` if the adapter is for another base or leaves the type's range, `Conflict` if `out` is there,
    `DiskFull` before anything is written.
    """
    check_base(adapter, base)
    if out.exists():
        raise Conflict("it is there already", where=str(out), fix="remove it, or choose another folder")
    total = sum(tensor.size_bytes for tensor in base.tensors.values())
    free = disk.free_bytes(out.parent)
    if total > free:
        what = f"the merged checkpoint takes {total >> 20} MiB and {free >> 20} MiB are free"
        raise DiskFull(what, where=str(out), fix="free space or choose another folder")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # what an interrupted run left
    try:
        with disk.part(part / "model.safetensors") as file:
            file.write(_header(base))
            done = 0
            for name, tensor in base.tensors.items():
                for piece in _pieces(name, tensor, adapter, scale):
                    data = _stored(piece, tensor)
                    file.write(data)
                    done += len(data)
                    progress(f"merging {name}", done, total)
            file.sync()
        weights = {tensor.path for tensor in base.tensors.values()}
        for path in base.files:
            if path not in weights and not path.name.endswith(".safetensors.index.json"):
                disk.replace(part / path.name, path.read_bytes(), mode=0o644)
        os.chmod(part / "model.safetensors", 0o644)  # noqa: PTH101 (a part file is its owner's alone)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _header(base: Checkpoint) -> bytes:
    at, entries = 0, {}
    for name, tensor in base.tensors.items():
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size_bytes],
        }
        at += tensor.size_bytes
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


def _pieces(name: str, tensor: Tensor, adapter: Adapter, scale: float) -> Iterator[NDArray[np.float32]]:
    pair = adapter.pairs.get(name)
    if pair is None:
        yield from tensor.rows()
        return
    down, up, first = pair.down.whole(), pair.up.whole(), 0
    factor = np.float32(scale * adapter.scale(pair))
    for rows in tensor.rows():
        change = np.zeros_like(rows)
        for column, row in zip(up[first : first + len(rows)].T, down, strict=True):
            # Not a matrix product: libraries for those add up in an order of their own on each kind of processor.
            change += column[:, None] * row
        piece = rows + factor * change
        if tensor.dtype == "F16" and float(np.abs(piece).max(initial=0.0)) > _F16_MAX:
            what = f"merged, {name} holds numbers beyond f16's range of {_F16_MAX:.0f}"
            raise AdapterBad(what, where=str(adapter.folder), fix="convert the base to bf16 or f32 first")
        first += len(rows)
        yield piece


def _stored(piece: NDArray[np.float32], tensor: Tensor) -> bytes:
    """Return numbers in the tensor's own type; bfloat16 is rounded to the nearest, ties to even."""
    if tensor.dtype == "F32":
        return piece.astype("<f4").tobytes()
    if tensor.dtype == "F16":
        return piece.astype("<f2").tobytes()
    bits = np.ascontiguousarray(piece, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
