"""Llama-family checkpoints as GGUF, in f16, Q8_0 or Q4_0, without llama.cpp's tools.

What follows llama.cpp: tensor names come from `gguf`'s own map; norms stay f32; the rows of the query and key matrices
are reordered, because Hugging Face rotates halves of a head and llama.cpp neighbours; a Q4_0 model keeps its output
matrix (the embedding, where they are one) in Q8_0. llama.cpp's tool uses Q6_K there, which `gguf` cannot make; Q8_0 is
larger and closer.

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
from drupelet.forge.checkpoint import Checkpoint, LlamaConfig
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.safetensors import Tensor
from drupelet.forge.vocab import Vocabulary, read_vocabulary

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
    "q8_0": _Scheme(Kind.Q8_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": _Scheme(Kind.Q4_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor of the file: where it comes from, its name and kind there."""

    source: Tensor
    name: str
    kind: Kind
    heads: int
    """Heads whose rows are reordered; 0 for none."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in elements, or in bytes a row where it is quantized."""
        if self.kind in (Kind.F16, Kind.F32):
            return self.source.shape
        return tuple(gguf.quant_shape_to_byte_shape(self.source.shape, self.kind))

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.source.shape)) // block * size


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
        head = _header(checkpoint.known(), read_vocabulary(checkpoint), plan, scheme=scheme, model_name=model_name)
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
    config = checkpoint.known()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    found: dict[str, _Planned] = {}
    for source_name, tensor in checkpoint.tensors.items():
        name = names.get_name(source_name, try_suffixes=(".weight",))
        if name is None:
            raise CheckpointBad(f"tensor {source_name} has no name in GGUF", where=str(tensor.path))
        heads = 0
        if name.endswith(".attn_q.weight"):
            heads = config.num_attention_heads
        elif name.endswith(".attn_k.weight"):
            heads = config.kv_heads
        found[name] = _Planned(tensor, name, Kind.F32, heads)
    has_output = "output.weight" in found
    for name, planned in found.items():
        if len(planned.source.shape) < 2:
            continue
        is_output = name == _OUTPUTS[0] or (not has_output and name == _OUTPUTS[1])
        kind = scheme.output if is_output else scheme.matrices
        if planned.source.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Kind.F16  # rows that do not divide into blocks stay whole, as llama.cpp's tools do
        found[name] = _Planned(planned.source, name, kind, planned.heads)
    return list(found.values())


def _pieces(planned: _Planned) -> Iterator[bytes]:
    """Yield the tensor's bytes as the file wants them, some rows at a time."""
    head_rows = planned.source.shape[0] // planned.heads if planned.heads else 1
    for read in planned.source.rows(multiple=head_rows):
        rows = _halves_to_neighbours(read, head_rows) if planned.heads else read
        if planned.kind is Kind.F16 and float(np.abs(rows).max(initial=0.0)) > _F16_MAX:
            what = f"tensor {planned.source.name} holds numbers beyond f16's range of {_F16_MAX:.0f}"
            raise CheckpointBad(what, where=str(planned.source.path))
        yield gguf.quants.quantize(rows, planned.kind).tobytes()


def _halves_to_neighbours(rows: NDArray[np.float32], head_rows: int) -> NDArray[np.float32]:
    """Reorder the rows of each head so that those rotated together, i and i + half, become neighbours."""
    heads = rows.shape[0] // head_rows
    pairs = rows.reshape(heads, 2, head_rows // 2, rows.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _header(
    config: LlamaConfig, vocabulary: Vocabulary, plan: list[_Planned], *, scheme: _Scheme, model_name: str
) -> bytes:
    """Return everything before the weights: magic, settings, vocabulary, tensor table."""
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_name(model_name)
    writer.add_file_type(scheme.file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.rope_scaling and "factor" in config.rope_scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(_factor(config.rope_scaling["factor"]))
    _add_vocabulary(writer, vocabulary)
    for planned in plan:
        quantized = planned.kind not in (Kind.F16, Kind.F32)
        dtype = np.dtype(np.uint8 if quantized else np.float32)
        writer.add_tensor_info(planned.name, planned.stored_shape, dtype, planned.size_bytes, planned.kind)
    with tempfile.TemporaryDirectory(prefix="drupelet-forge-") as scratch:
        path = Path(scratch) / "head"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return path.read_bytes()


def _factor(value: Any) -> float:
    if not isinstance(value, int | float) or not 1 <= value <= 1024:
        raise CheckpointBad(f"rope_scaling factor {value!r} is not a number from 1 to 1024", where="config.json")
    return float(value)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(vocabulary.pieces))
    writer.add_token_scores(list(vocabulary.scores))
    writer.add_token_types([int(kind) for kind in vocabulary.types])
    for add, token in (
        (writer.add_bos_token_id, vocabulary.bos),
        (writer.add_eos_token_id, vocabulary.eos),
        (writer.add_unk_token_id, vocabulary.unknown),
        (writer.add_pad_token_id, vocabulary.padding),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
