"""Checkpoints as GGUF without llama.cpp's tools: the embedded default, from pure wheels and without a compiler.

What follows llama.cpp: tensor names come from `gguf`'s own map; norms, biases and computed tensors stay f32; what is
done to weights on the way is the architecture's business (`forge.architectures`). A model of four or five bits keeps
its output matrix (the embedding, where they are one) in Q8_0: llama.cpp's tool uses Q6_K there, which `gguf` cannot
make; Q8_0 is larger and closer.

Memory: one piece of one matrix at a time, some tens of megabytes, whatever the model's size. The header, which holds
the vocabulary, is made by `gguf`'s writer in a scratch folder; weights go straight to the part file.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable.port import Disk
from drupelet.forge.architectures import AnyDecoder
from drupelet.forge.architectures.port import Change
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.safetensors import Tensor
from drupelet.forge.tokenizers import Vocabulary, open_tokenizer

_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT
_F16_MAX = float(np.finfo(np.float16).max)
_OUTPUTS = ("output.weight", "token_embd.weight")


@dataclass(frozen=True, slots=True)
class _Scheme:
    """What a quantization does to matrices, to the output matrix, and what the file calls itself."""

    matrices: Kind
    output: Kind
    file_type: gguf.LlamaFileType


_SCHEMES = {
    "f16": _Scheme(Kind.F16, Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": _Scheme(Kind.BF16, Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f32": _Scheme(Kind.F32, Kind.F32, gguf.LlamaFileType.ALL_F32),
    "q8_0": _Scheme(Kind.Q8_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_1": _Scheme(Kind.Q5_1, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q5_1),
    "q5_0": _Scheme(Kind.Q5_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_1": _Scheme(Kind.Q4_1, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": _Scheme(Kind.Q4_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
_WHOLE = (Kind.F32, Kind.F16, Kind.BF16)
_DTYPES: dict[Kind, np.dtype[Any]] = {Kind.F32: np.dtype(np.float32), Kind.F16: np.dtype(np.float16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """One tensor of the file: where it comes from, its name and kind there, what is done to it on the way."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    source: Tensor | NDArray[np.float32]
    """In the checkpoint, or computed from its config."""
    change: Change

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in elements, or in bytes a row where the writer knows the kind by its bytes."""
        return self.shape if self.kind in _DTYPES else tuple(gguf.quant_shape_to_byte_shape(self.shape, self.kind))

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * size


class GgufFormat:
    """Implements `Format`."""

    name = "gguf"
    quantizations = tuple(_SCHEMES)

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Write the GGUF: header, then each tensor as it is read, converted and quantized."""
        scheme = _SCHEMES.get(quantization)
        if scheme is None:
            raise BadInput(f"unknown quantization {quantization!r}", fix=f"use one of {', '.join(_SCHEMES)}")
        plan = _plan(checkpoint, scheme)
        vocabulary = open_tokenizer(checkpoint).vocabulary
        head = _header(checkpoint.known(), vocabulary, plan, scheme=scheme, model_name=model_name)
        total = sum(planned.size_bytes for planned in plan)
        part = out.with_name(out.name + ".part")
        disk.remove(part)  # what an interrupted run left
        hashing, done = hashlib.sha256(), 0
        with disk.part(part) as file:

            def put(data: bytes) -> None:
                hashing.update(data)
                file.write(data)

            put(head + _padding(len(head)))
            for planned in plan:
                for piece in _pieces(planned):
                    put(piece)
                    done += len(piece)
                    progress(f"{quantization} {planned.name}", done, total)
                put(_padding(planned.size_bytes))
            size = file.size
        disk.publish(part, out)
        digest = Digest.of_hex(hashing.hexdigest())
        return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization)


def _padding(size: int) -> bytes:
    return bytes(-size % _ALIGNMENT)


def _plan(checkpoint: Checkpoint, scheme: _Scheme) -> list[_Planned]:
    model = checkpoint.known()
    names = model.names()
    has_output = _OUTPUTS[0] in names.values()
    plan = [
        _Planned(name=name, shape=values.shape, kind=Kind.F32, source=values, change=Change())
        for name, values in model.extra().items()
    ]
    for source, tensor in checkpoint.tensors.items():
        name = names[source]
        is_output = name == _OUTPUTS[0] or (not has_output and name == _OUTPUTS[1])
        kind = scheme.output if is_output else scheme.matrices
        if len(tensor.shape) < 2:
            kind = Kind.F32
        elif tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Kind.F16  # rows that do not divide into blocks stay whole, as llama.cpp's tools do
        plan.append(_Planned(name=name, shape=tensor.shape, kind=kind, source=tensor, change=model.change(source)))
    return plan


def _pieces(planned: _Planned) -> Iterator[bytes]:
    """Yield the tensor's bytes as the file wants them, some rows at a time."""
    if not isinstance(planned.source, Tensor):
        yield planned.source.astype("<f4").tobytes()
        return
    change, where = planned.change, str(planned.source.path)
    head_rows = planned.shape[0] // change.heads if change.heads else 1
    for read in planned.source.rows(multiple=head_rows):
        rows = _halves_to_neighbours(read, head_rows) if change.heads else read
        if change.add:
            rows = rows + np.float32(change.add)
        if planned.kind is Kind.F16 and float(np.abs(rows).max(initial=0.0)) > _F16_MAX:
            what = f"tensor {planned.source.name} holds numbers beyond f16's range of {_F16_MAX:.0f}"
            raise CheckpointBad(what, where=where, fix="convert to bf16 or f32")
        yield gguf.quants.quantize(rows, planned.kind).tobytes()


def _halves_to_neighbours(rows: NDArray[np.float32], head_rows: int) -> NDArray[np.float32]:
    """Reorder the rows of each head so that those rotated together, i and i + half, become neighbours."""
    heads = rows.shape[0] // head_rows
    pairs = rows.reshape(heads, 2, head_rows // 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _header(
    model: AnyDecoder, vocabulary: Vocabulary, plan: list[_Planned], *, scheme: _Scheme, model_name: str
) -> bytes:
    """Return everything before the weights: magic, settings, vocabulary, tensor table."""
    writer = gguf.GGUFWriter(None, model.arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(model_name)
    writer.add_file_type(scheme.file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    model.describe(writer)
    _add_vocabulary(writer, vocabulary)
    for planned in plan:
        dtype = _DTYPES.get(planned.kind, np.dtype(np.uint8))
        writer.add_tensor_info(planned.name, planned.stored_shape, dtype, planned.size_bytes, planned.kind)
    with tempfile.TemporaryDirectory(prefix="drupelet-forge-") as scratch:
        path = Path(scratch) / "head"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return path.read_bytes()


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.pieces))
    if vocabulary.scores is not None:
        writer.add_token_scores(list(vocabulary.scores))
    writer.add_token_types([int(kind) for kind in vocabulary.types])
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    for kind, token in vocabulary.special.items():
        getattr(writer, f"add_{kind}_token_id")(token)
    for add, value in (
        (writer.add_add_bos_token, vocabulary.add_bos),
        (writer.add_add_eos_token, vocabulary.add_eos),
        (writer.add_add_space_prefix, vocabulary.add_space_prefix),
    ):
        if value is not None:
            add(value)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
