"""Reading GGUF files that may lie: the table of contents is proved against the file before a byte of weights is used.

The format (docs/formats/checkpoint.md): magic, version, counts; settings, each a name, a type and a value; tensors,
each a name, sizes, a kind and an offset; then, aligned, the tensors' bytes. The proof: every count, length and size is
bounded and fits the file; names are unique; every tensor's bytes are exactly its sizes times its kind; together they
cover the rest of the file with no overlap and no hole but the padding that the alignment calls for.

llama.cpp reads such files on a device, in C; a file that has passed here says nothing there that it does not hold.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from drupelet.forge.errors import ModelFileBad

VERSIONS = (2, 3)
HEADER_BYTES_MAX = 64 << 20
"""A vocabulary of 256,000 tokens with its merges takes about 16 MB."""
SETTINGS_MAX = 4_096
TENSORS_MAX = 100_000
NAME_BYTES_MAX = 256
TENSOR_NAME_BYTES_MAX = 63
"""ggml keeps names in 64 bytes, the closing zero among them (GGML_MAX_NAME)."""
STRING_BYTES_MAX = 8 << 20
ELEMENTS_MAX = 1 << 21
DIMENSIONS_MAX = 4
ALIGNMENT_MAX = 1 << 16

Value = int | float | bool | str | list[Any]
_NUMBERS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """One tensor. `shape` has the rows first, as numpy has it; `start` counts bytes from the file's beginning."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """What a GGUF file says, in its own order."""

    path: Path
    version: int
    settings: Mapping[str, Value]
    tensors: tuple[FileTensor, ...]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def read_gguf(path: Path) -> GgufFile:
    """Return the table of contents of a GGUF file, or raise `ModelFileBad` saying how it lies."""
    try:
        with path.open("rb") as file:
            cursor = _Cursor(file, size=path.stat().st_size, where=str(path))
            return _read(path, cursor)
    except OSError as error:
        raise ModelFileBad(f"cannot be read: {error.strerror}", where=str(path)) from error


class _Cursor:
    """Takes bytes from the front of a file, never more than it has or than a header may take."""

    def __init__(self, file: IO[bytes], *, size: int, where: str) -> None:
        self._file, self.size, self.where = file, size, where
        self.position = 0

    def fail(self, what: str, *, fix: str = "") -> ModelFileBad:
        return ModelFileBad(what, where=self.where, fix=fix)

    def take(self, count: int) -> bytes:
        if self.position + count > HEADER_BYTES_MAX:
            raise self.fail(f"its table of contents is larger than {HEADER_BYTES_MAX} bytes")
        data = self._file.read(count) if count <= self.size - self.position else b""
        if len(data) != count:
            raise self.fail(f"it ends inside its table of contents, at byte {self.size}", fix="copy it again")
        self.position += count
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, bytes_max: int, what: str) -> str:
        length = self.number("<Q")
        if length > bytes_max:
            raise self.fail(f"{what} of {length} bytes, more than {bytes_max}")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} is not UTF-8") from error


def _read(path: Path, cursor: _Cursor) -> GgufFile:
    if cursor.size < 24 or cursor.take(4) != b"GGUF":
        raise cursor.fail("not a GGUF file", fix="the magic is missing; was it cut, or is it another format?")
    version = cursor.number("<I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "a big-endian GGUF, which no Raspberry Pi reads" if swapped else f"GGUF version {version}"
        raise cursor.fail(what, fix=f"versions {VERSIONS[0]} and {VERSIONS[1]} are read; convert it again")
    tensor_count, setting_count = cursor.number("<Q"), cursor.number("<Q")
    if tensor_count > TENSORS_MAX or setting_count > SETTINGS_MAX:
        raise cursor.fail(f"it claims {tensor_count} tensors and {setting_count} settings")
    settings: dict[str, Value] = {}
    for _ in range(setting_count):
        name = cursor.text(NAME_BYTES_MAX, "a setting's name")
        if not name or name in settings:
            raise cursor.fail(f"the setting {name!r:.80} occurs twice" if name else "a setting has no name")
        settings[name] = _value(cursor, cursor.number("<I"), name)
    alignment = settings.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {alignment!r:.40}, no power of two from 8 to {ALIGNMENT_MAX}")
    infos = [_tensor(cursor) for _ in range(tensor_count)]
    names = {name for name, *_ in infos}
    if len(names) != len(infos):
        raise cursor.fail("two tensors have the same name")
    begin = cursor.position + -cursor.position % alignment
    tensors = tuple(
        FileTensor(name=name, kind=kind, shape=shape, start=begin + offset) for name, kind, shape, offset in infos
    )
    _prove_cover(tensors, cursor, begin=begin, alignment=alignment)
    return GgufFile(path=path, version=version, settings=settings, tensors=tensors)


def _value(cursor: _Cursor, kind: int, name: str, *, inside: bool = False) -> Value:
    if kind == _STRING:
        return cursor.text(STRING_BYTES_MAX, f"a text in {name!r:.80}")
    if kind == _BOOL:
        byte = cursor.number("B")
        if byte > 1:
            raise cursor.fail(f"{name!r:.80} is neither true nor false")
        return bool(byte)
    if kind in _NUMBERS:
        number: int | float = cursor.number(_NUMBERS[kind])
        return number
    if kind != _ARRAY or inside:
        raise cursor.fail(f"{name!r:.80} is of the unknown type {kind}, or a list of lists")
    inner, count = cursor.number("<I"), cursor.number("<Q")
    if count > ELEMENTS_MAX:
        raise cursor.fail(f"{name!r:.80} has {count} elements, more than {ELEMENTS_MAX}")
    if inner in _NUMBERS:
        form = np.dtype(_NUMBERS[inner])
        return np.frombuffer(cursor.take(count * form.itemsize), dtype=form).tolist()  # type: ignore[no-any-return]
    # An element takes 1 byte at least: a count that the file cannot hold ends the reading at once.
    return [_value(cursor, inner, name, inside=True) for _ in range(count)]


def _tensor(cursor: _Cursor) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
    name = cursor.text(TENSOR_NAME_BYTES_MAX, "a tensor's name")
    count = cursor.number("<I")
    if not name or not 1 <= count <= DIMENSIONS_MAX:
        raise cursor.fail(f"tensor {name!r} has {count} dimensions, or no name")
    sizes = [cursor.number("<Q") for _ in range(count)]
    code, offset = cursor.number("<I"), cursor.number("<Q")
    try:
        kind = GGMLQuantizationType(code)
    except ValueError as error:
        fix = "it was made by a newer tool than this reader knows, or is damaged"
        raise cursor.fail(f"tensor {name!r} is of the unknown kind {code}", fix=fix) from error
    # Python's numbers do not overflow; those of a reader in C do, so the product is bounded by the file itself.
    if any(size < 1 for size in sizes) or math.prod(sizes) > cursor.size * 16:
        raise cursor.fail(f"tensor {name!r} claims sizes {sizes}, more than the file can hold")
    if sizes[0] % GGML_QUANT_SIZES[kind][0]:
        raise cursor.fail(f"rows of {sizes[0]} numbers in tensor {name!r} do not divide into blocks of {kind.name}")
    return name, kind, tuple(reversed(sizes)), offset


def _prove_cover(tensors: tuple[FileTensor, ...], cursor: _Cursor, *, begin: int, alignment: int) -> None:
    position, before, padded = begin, "the table of contents", begin
    for tensor in sorted(tensors, key=lambda one: one.start):
        if tensor.start != padded:
            how = "overlaps" if tensor.start < padded else "leaves a hole after"
            raise cursor.fail(f"tensor {tensor.name!r} {how} {before}, or is not aligned to {alignment}")
        position = tensor.start + tensor.size_bytes
        padded, before = position + -position % alignment, f"tensor {tensor.name!r}"
        if position > cursor.size:
            what = f"{before} ends at byte {position} and the file at {cursor.size}"
            raise cursor.fail(what, fix="the file was cut; copy it again")
    if tensors and cursor.size not in (position, padded):
        what = f"the tensors end at byte {position} and the file at {cursor.size}"
        raise cursor.fail(what, fix="something was added to it; copy it again")


def read_rows(file: GgufFile, tensor: FileTensor, *, bytes_max: int, use: Callable[[bytes], None]) -> None:
    """Call `use` with the tensor's bytes, whole blocks at a time and about `bytes_max` at once.

    Raises `ModelFileBad` if the file was cut since its table of contents was read.
    """
    size = GGML_QUANT_SIZES[tensor.kind][1]
    step = max(1, bytes_max // size) * size
    with file.path.open("rb") as source:
        source.seek(tensor.start)
        left = tensor.size_bytes
        while left:
            data = source.read(min(step, left))
            if len(data) != min(step, left):
                raise ModelFileBad(f"the file ends inside tensor {tensor.name!r}", where=str(file.path))
            use(data)
            left -= len(data)
