"""A checkpoint in Hugging Face's layout, opened without trust: what is there is exactly what its config calls for.

Nothing in the folder is executed: weights come from safetensors only, never from a pickle. Files are named by the
checkpoint itself (a shard index), so every name is held inside the folder. Weights are streamed tensor by tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupelet.core.names import Digest
from drupelet.forge.architectures import AnyDecoder, open_decoder
from drupelet.forge.architectures.config import DecoderConfig
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.safetensors import Tensor, parse_json, read_header
from drupelet.forge.shape import ModelShape

CONFIG_BYTES_MAX = 1 << 20
TOKENIZER_CONFIG_BYTES_MAX = 8 << 20
"""Gemma 3's lists 6,400 added tokens in 1.2 MB."""
INDEX_BYTES_MAX = 32 << 20
TOKENIZER_BYTES_MAX = 64 << 20
SHARDS_MAX = 1_000
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Files beside the weights that belong to a model, where they are there."""
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HASH_BYTES = 1 << 20
_NAMED_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose config, names, types and shapes agree; values are checked as they are read."""

    folder: Path
    architecture: str
    """As `config.json` names it, such as `LlamaForCausalLM`."""
    shape: ModelShape
    model: AnyDecoder | None
    """None for an architecture that the embedded converter does not know; `known()` raises `unknown` then."""
    unknown: Unsupported | None
    tensors: dict[str, Tensor]
    """Exactly those the config calls for, in its order; `lm_head.weight` only if it is not the embedding. All that
    the files hold, where the architecture is not known."""
    files: tuple[Path, ...]
    """All files that belong to the model; `digest` is of them."""
    tokenizer: Path | None
    """`tokenizer.model`, or `tokenizer.json` where there is none."""
    tokenizer_config: dict[str, Any]
    """With the chat template of `chat_template.jinja`, if there is one."""
    fields: dict[str, Any]
    """`config.json`."""
    generation: dict[str, Any]
    """`generation_config.json`."""
    digest: Digest
    """Of the names and bytes of all files that were used."""
    model_file: Path | None = None
    """A GGUF that takes the checkpoint's place: the reference as it is; see `imports.open_source`."""
    quantization: str = "f16"
    """What the reference is kept in."""

    def known(self) -> AnyDecoder:
        """Return the model, or raise `Unsupported` saying why the embedded converter cannot convert it."""
        if self.model is None:
            raise self.unknown or Unsupported("unknown architecture", where=str(self.folder))
        return self.model

    @property
    def config(self) -> DecoderConfig | None:
        """The config's fields as its architecture reads them, where it is known."""
        return self.model.config if self.model is not None else None

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(tensor.size_bytes // (4 if tensor.dtype == "F32" else 2) for tensor in self.tensors.values())


def open_checkpoint(folder: Path, *, on_hash: Callable[[int, int], None] | None = None) -> Checkpoint:
    """Open and check the checkpoint in `folder`. `on_hash(done_bytes, total_bytes)` reports while it is hashed.

    Raises `CheckpointBad` for damage and contradictions, `Unsupported` for what the converter does not know.
    """
    _refuse_what_is_none(folder)
    fields = _fields(folder)
    files, tensors = _tensors(folder)
    where = str(folder / "config.json")
    model: AnyDecoder | None = None
    unknown: Unsupported | None = None
    try:
        model = open_decoder(_named(fields), fields, where=where)
    except Unsupported as error:
        unknown = error
    if model is not None:
        tensors = _exactly_expected(tensors, model, folder)
    beside = tuple(_inside(folder, name) for name in BESIDE if (folder / name).exists())
    used = (*files, *beside)
    tokenizer = next((folder / name for name in TOKENIZERS if folder / name in beside), None)
    if tokenizer is None and not (folder / "vocab.json").exists():
        raise CheckpointBad(f"there is no {' or '.join(TOKENIZERS)}", where=str(folder))
    return Checkpoint(
        folder=folder,
        architecture=_named(fields),
        shape=model.shape if model is not None else guess_shape(fields, where=where),
        model=model,
        unknown=unknown,
        tensors=tensors,
        files=used,
        tokenizer=tokenizer,
        tokenizer_config=_tokenizer_config(folder),
        fields=fields,
        generation=_settings(folder, "generation_config.json"),
        digest=_digest(used, on_hash or (lambda _done, _total: None)),
    )


def _refuse_what_is_none(folder: Path) -> None:
    """Raise for what people give instead of a folder with weights: archives, model files, adapters."""
    if folder.is_file():
        what = "a file, where a checkpoint is a folder"
        fix = "unpack it yourself and give the folder" if folder.suffix in _ARCHIVES else "give the folder it lies in"
        if folder.suffix == ".gguf":
            fix = "a GGUF is imported: drupelet forge import"
        raise CheckpointBad(what, where=str(folder), fix=fix)
    if not folder.is_dir():
        raise CheckpointBad("there is no such folder", where=str(folder))
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        fix = "give its base as the checkpoint; an adapter is converted by the toolchain, or merged first"
        raise Unsupported("an adapter (LoRA), not a whole model", where=str(folder), fix=fix)


def _settings(folder: Path, name: str, bytes_max: int = CONFIG_BYTES_MAX) -> dict[str, Any]:
    path = folder / name
    return parse_json(read_bounded(path, bytes_max), where=str(path)) if path.exists() else {}


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    settings = _settings(folder, "tokenizer_config.json", TOKENIZER_CONFIG_BYTES_MAX)
    if (folder / "chat_template.jinja").exists():
        settings["chat_template"] = _text(folder / "chat_template.jinja")
    return settings


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Return a small file whole. Raises `CheckpointBad` if it is larger or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise CheckpointBad(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) > bytes_max:
        raise CheckpointBad(f"larger than the {bytes_max} bytes allowed", where=str(path))
    return data


def _text(path: Path) -> str:
    try:
        return read_bounded(path, CONFIG_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointBad(f"not UTF-8 at byte {error.start}", where=str(path)) from error


def _inside(folder: Path, name: str) -> Path:
    """Return the file `name` of the folder itself, or raise: a path, a way out, a symbolic link that leads out."""
    path = folder / name
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise CheckpointBad(f"{name[:200]!r} is not a plain file name", where=str(folder))
    if path.resolve().parent != folder.resolve():
        fix = "copy the checkpoint with its links followed (cp -rL)"
        raise CheckpointBad("a link leads out of the checkpoint's folder", where=str(path), fix=fix)
    return path


def _fields(folder: Path) -> dict[str, Any]:
    path = _inside(folder, "config.json")
    if not path.exists():
        raise CheckpointBad("there is no config.json: not a checkpoint in Hugging Face's layout", where=str(folder))
    return parse_json(read_bounded(path, CONFIG_BYTES_MAX), where=str(path))


def _named(fields: dict[str, Any]) -> str:
    named = fields.get("architectures")
    return str(named[0])[:80] if isinstance(named, list) and named else "none"


def guess_shape(fields: dict[str, Any], *, where: str) -> ModelShape:
    """Return the sizes that `config.json` tells of an architecture that is not known, by their usual names.

    Raises `CheckpointBad` where layers, width, vocabulary or context are missing or no sizes.
    """
    inner = fields.get("text_config")
    known = {**fields, **inner} if isinstance(inner, dict) else fields

    def size(default: int | None, *names: str) -> int:
        value = next((known[name] for name in names if known.get(name) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 24:
            raise CheckpointBad(f"{names[0]} is missing or no size", where=where)
        return value

    hidden = size(None, "hidden_size", "n_embd", "d_model")
    heads = size(0, "num_attention_heads", "n_head", "num_heads")
    width = size(hidden // heads if heads else 0, "head_dim")
    return ModelShape(
        layers=size(None, "num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=size(heads, "num_key_value_heads"),
        key_width=width,
        value_width=width,
        context=size(None, "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len"),
        vocab=size(None, "vocab_size"),
    )


def _tensors(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """Return the weight files (and the index, if any) and all tensors in them."""
    if (folder / "model.safetensors.index.json").exists():
        return _sharded(folder)
    path = _inside(folder, "model.safetensors")
    if not path.exists():
        pickles = sorted(found.name for pattern in _PICKLES for found in folder.glob(pattern))
        if pickles:
            fix = "load it where you trust it and save it again: model.save_pretrained(folder, safe_serialization=True)"
            raise Unsupported(f"{pickles[0]} is a pickle, which is never opened", where=str(folder), fix=fix)
        raise CheckpointBad("there is no model.safetensors", where=str(folder))
    return [path], read_header(path)


def _sharded(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    index = _inside(folder, "model.safetensors.index.json")
    where = str(index)
    mapping = parse_json(read_bounded(index, INDEX_BYTES_MAX), where=where).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise CheckpointBad("weight_map does not map tensor names to file names", where=where)
    shards = sorted(set(mapping.values()))
    if len(shards) > SHARDS_MAX:
        raise CheckpointBad(f"it names {len(shards)} shards, more than {SHARDS_MAX}", where=where)
    tensors: dict[str, Tensor] = {}
    files = [_inside(folder, name) for name in shards]
    for path in files:
        if not path.exists():
            raise CheckpointBad(f"the shard {path.name} is missing", where=str(folder), fix="download it again")
        for name, tensor in read_header(path).items():
            if mapping.get(name) != path.name:
                raise CheckpointBad(f"the index does not place tensor {name[:200]!r} here", where=str(path))
            tensors[name] = tensor
    if missing := sorted(mapping.keys() - tensors.keys()):
        raise CheckpointBad(f"the index names {_some(missing)}, which no shard holds", where=where)
    return [index, *files], tensors


def _exactly_expected(tensors: dict[str, Tensor], model: AnyDecoder, folder: Path) -> dict[str, Tensor]:
    where = str(folder)
    tensors = {own: tensor for name, tensor in tensors.items() if (own := model.own_name(name)) is not None}
    expected = model.expected()
    if missing := [name for name in expected if name not in tensors]:
        raise CheckpointBad(f"tensors are missing: {_some(missing)}", where=where)
    extra = [name for name in tensors if name not in expected]
    if model.config.tie_word_embeddings and "lm_head.weight" in extra:
        _prove_tied(tensors, where)
        extra.remove("lm_head.weight")
    if extra:
        fix = "config.json and the weights belong to different models, or the architecture is another one"
        raise CheckpointBad(
            f"there are tensors that config.json does not call for: {_some(extra)}", where=where, fix=fix
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            what = f"tensor {name} has the shape {list(tensors[name].shape)} where config.json calls for {list(shape)}"
            raise CheckpointBad(what, where=str(tensors[name].path))
    return {name: tensors[name] for name in expected}


def _prove_tied(tensors: dict[str, Tensor], where: str) -> None:
    """A tied model may carry its embedding twice; two different ones contradict its config."""
    head, embedding = tensors["lm_head.weight"], tensors["model.embed_tokens.weight"]
    same = head.shape == embedding.shape and all(
        (a == b).all() for a, b in zip(head.rows(), embedding.rows(), strict=False)
    )
    if not same:
        raise CheckpointBad("tie_word_embeddings is true, yet lm_head.weight differs from the embedding", where=where)


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:120] for name in names[:_NAMED_MAX])
    return shown if len(names) <= _NAMED_MAX else f"{shown} and {len(names) - _NAMED_MAX} more"


def _digest(files: Sequence[Path], on_hash: Callable[[int, int], None]) -> Digest:
    """Return the digest over each file's name and its bytes' digest, in the order of names."""
    total, done = sum(path.stat().st_size for path in files), 0
    lines: list[str] = []
    for path in sorted(files):
        hashing = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_HASH_BYTES):
                hashing.update(data)
                done += len(data)
                on_hash(done, total)
        lines.append(f"{hashing.hexdigest()}  {path.name}\n")
    return Digest.of_hex(hashlib.sha256("".join(lines).encode()).hexdigest())
