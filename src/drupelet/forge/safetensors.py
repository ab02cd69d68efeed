"""Reading safetensors files that may lie: the header is proved against the file before a byte of weights is used.

The format (docs/formats/checkpoint.md): 8 bytes with the header's length, little endian; the header, JSON, name ->
`{dtype, shape, data_offsets}`; then the tensors' bytes. The proof: the header fits the file and a bound; every dtype is
known; every tensor's bytes are exactly its shape times its dtype; together the tensors cover the rest of the file with
neither hole nor overlap. So no two names can share bytes, and nothing can hide between them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drupelet.forge.errors import CheckpointBad, Unsupported

HEADER_BYTES_MAX = 32 << 20
"""A header of 100,000 tensors takes about 12 MB."""
TENSORS_MAX = 100_000
DIMENSIONS_MAX = 8
CHUNK_BYTES = 8 << 20
"""Weights are read in pieces of about this size, so that memory does not grow with the model."""

_DTYPE_BYTES = (
    dict.fromkeys(("F64", "I64", "U64"), 8)
    | dict.fromkeys(("F32", "I32", "U32"), 4)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)
    | dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1)
)
_READABLE = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor lies and what it is. `start` counts bytes from the file's beginning."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * _DTYPE_BYTES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first dimension."""
        return math.prod(self.shape[1:]) * _DTYPE_BYTES[self.dtype]

    def rows(self, *, multiple: int = 1) -> Iterator[NDArray[np.float32]]:
        """Yield the tensor as float32 in pieces along its first dimension, each a multiple of `multiple` rows.

        Raises `CheckpointBad` at the first NaN or infinity, and if the file was cut since it was opened.
        """
        if self.dtype not in _READABLE:
            fix = f"convert it to one of {', '.join(_READABLE)}"
            raise Unsupported(f"tensor {self.name} is of type {self.dtype}", where=str(self.path), fix=fix)
        step = max(1, CHUNK_BYTES // max(1, self.row_bytes * multiple)) * multiple
        with self.path.open("rb") as file:
            file.seek(self.start)
            for first in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - first)
                values = _floats(_exactly(file, count * self.row_bytes, self), self.dtype)
                piece = values.reshape(count, *self.shape[1:])
                if not np.isfinite(piece).all():
                    row = first + int(np.argwhere(~np.isfinite(piece))[0][0])
                    what = f"tensor {self.name} holds a NaN or an infinity in row {row}"
                    raise CheckpointBad(what, where=str(self.path), fix="the training run diverged; use an earlier one")
                yield piece

    def whole(self) -> NDArray[np.float32]:
        """Return the whole tensor as float32."""
        return np.concatenate(list(self.rows()))


def _exactly(file: IO[bytes], length: int, tensor: Tensor) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise CheckpointBad(f"the file ends inside tensor {tensor.name}", where=str(tensor.path), fix="copy it again")
    return data


def _floats(data: bytes, dtype: str) -> NDArray[np.float32]:
    if dtype == "F32":
        return np.frombuffer(data, dtype="<f4").astype(np.float32)
    if dtype == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    # bfloat16 is the upper half of a float32.
    return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, or raise `CheckpointBad` saying how the header lies."""
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            lead = file.read(8)
            length = int.from_bytes(lead, "little")
            if len(lead) < 8 or length > size - 8:
                what = f"its header claims {length} bytes and the file has {size}"
                raise CheckpointBad(what, where=where, fix="the file was cut or is no safetensors file; copy it again")
            if length > HEADER_BYTES_MAX:
                raise CheckpointBad(f"its header of {length} bytes is larger than {HEADER_BYTES_MAX}", where=where)
            data = file.read(length)
    except OSError as error:
        raise CheckpointBad(f"cannot be read: {error.strerror}", where=where) from error
    entries = parse_json(data, where=where)
    entries.pop("__metadata__", None)
    if len(entries) > TENSORS_MAX:
        raise CheckpointBad(f"it names {len(entries)} tensors, more than {TENSORS_MAX}", where=where)
    tensors = [_tensor(name, entry, path, 8 + length) for name, entry in entries.items()]
    _prove_cover(tensors, path, begin=8 + length, end=size)
    return {tensor.name: tensor for tensor in tensors}


def parse_json(data: bytes, *, where: str) -> dict[str, Any]:
    """Return a JSON object, or raise `CheckpointBad`: not UTF-8, not JSON, too deep, a name twice, no object."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise CheckpointBad(f"not UTF-8 at byte {error.start}", where=where) from error
    except RecursionError as error:
        raise CheckpointBad("its JSON is nested too deeply", where=where) from error
    except ValueError as error:
        raise CheckpointBad(f"not valid JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise CheckpointBad("its JSON is not an object", where=where)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _tensor(name: str, entry: object, path: Path, data_start: int) -> Tensor:
    where = str(path)
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointBad(f"tensor {name[:200]!r} lacks dtype, shape or data_offsets", where=where)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPE_BYTES:
        raise Unsupported(f"tensor {name[:200]!r} has the unknown type {str(dtype)[:40]!r}", where=where)
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX or not all(map(_is_count, shape)):
        raise CheckpointBad(f"tensor {name[:200]!r} has no proper shape", where=where)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise CheckpointBad(f"tensor {name[:200]!r} has no proper data_offsets", where=where)
    tensor = Tensor(name=name, path=path, dtype=dtype, shape=tuple(shape), start=data_start + offsets[0])
    if offsets[1] - offsets[0] != tensor.size_bytes:
        what = f"tensor {name[:200]!r} of shape {shape} and type {dtype} takes {tensor.size_bytes} bytes"
        raise CheckpointBad(f"{what}, its offsets say {offsets[1] - offsets[0]}", where=where)
    return tensor


def _prove_cover(tensors: list[Tensor], path: Path, *, begin: int, end: int) -> None:
    position, before = begin, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.size_bytes)):
        if tensor.start != position:
            how = "overlaps" if tensor.start < position else "leaves a hole after"
            raise CheckpointBad(f"tensor {tensor.name[:200]!r} {how} {before}", where=str(path))
        position, before = tensor.start + tensor.size_bytes, f"tensor {tensor.name[:200]!r}"
    if position != end:
        what = f"the tensors end at byte {position} and the file at {end}"
        raise CheckpointBad(what, where=str(path), fix="the file was cut or added to; copy it again")
