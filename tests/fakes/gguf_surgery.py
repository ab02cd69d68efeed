"""Taking a GGUF apart and putting it together again with something changed: how broken and honest files are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type
from numpy.typing import NDArray

from drupelet.core.names import Digest
from drupelet.forge.formats.port import Artifact

Array = NDArray[np.float32]


@dataclass(slots=True)
class Part:
    """One tensor: its bytes as the file has them, by rows, and what they are."""

    data: NDArray[Any]
    kind: Kind
    width: int

    def floats(self) -> Array:
        """Return the numbers."""
        return gguf.quants.dequantize(self.data, self.kind).reshape(*self.data.shape[:-1], self.width)

    def put(self, values: NDArray[Any], kind: Kind | None = None) -> None:
        """Replace the numbers, in the tensor's kind or another."""
        self.kind = kind if kind is not None else self.kind
        self.width = values.shape[-1]
        with np.errstate(all="ignore"):  # a planted NaN is meant
            self.data = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), self.kind)


@dataclass(slots=True)
class Body:
    """A whole file: its settings, name -> (type, value, type of a list's items), and its tensors."""

    fields: dict[str, tuple[Type, Any, Type | None]]
    tensors: dict[str, Part]

    def set(self, name: str, value: Any) -> None:
        """Replace a setting that is there."""
        kind, _, items = self.fields[name]
        self.fields[name] = (kind, value, items)

    def get(self, name: str) -> Any:
        """Return a setting."""
        return self.fields[name][1]


Change = Callable[[Body], None]


def read(path: Path) -> Body:
    """Take a file apart."""
    reader = gguf.GGUFReader(path)
    fields: dict[str, tuple[Type, Any, Type | None]] = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            fields[name] = (field.types[0], field.contents(), field.types[-1] if field.types[0] is Type.ARRAY else None)
    tensors = {
        tensor.name: Part(np.array(tensor.data), Kind(tensor.tensor_type), int(tensor.shape[0]))
        for tensor in reader.tensors
    }
    return Body(fields, tensors)


def write(body: Body, path: Path) -> Artifact:
    """Put a file together."""
    architecture = body.get("general.architecture")
    writer = gguf.GGUFWriter(path, architecture)
    for name, (kind, value, items) in body.fields.items():
        if name != "general.architecture":
            writer.add_key_value(name, value, kind, items)
    for name, part in body.tensors.items():
        raw = part.kind not in (Kind.F32, Kind.F16)
        writer.add_tensor(name, np.ascontiguousarray(part.data), raw_dtype=part.kind if raw else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
    return Artifact(path=path, digest=digest, size_bytes=len(data), quantization="")


def changed(source: Path, out: Path, change: Change) -> Artifact:
    """Write `source` to `out` with `change` made to it."""
    body = read(source)
    change(body)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write(body, out)


def quantized(kind: Kind, output: Kind | None = None) -> Change:
    """Return the change that quantizes all matrices, the embedding to `output`."""

    def change(body: Body) -> None:
        for name, part in body.tensors.items():
            if part.data.ndim > 1:
                is_output = name in ("token_embd.weight", "output.weight")
                part.put(part.floats(), output if is_output and output is not None else kind)

    return change
