"""A checkpoint in Hugging Face's layout, opened without trust: what is there is exactly what its config calls for.

Nothing in the folder is executed: weights come from safetensors only, never from a pickle. Files are named by the
checkpoint itself (a shard index), so every name is held inside the folder. Weights are streamed tensor by tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drupelet.core.names import Digest
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.safetensors import Tensor, parse_json, read_header
from drupelet.forge.shape import ModelShape

CONFIG_BYTES_MAX = 1 << 20
INDEX_BYTES_MAX = 32 << 20
TOKENIZER_BYTES_MAX = 64 << 20
SHARDS_MAX = 1_000
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""What the embedded converter knows; both are `llama` to llama.cpp."""
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
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HASH_BYTES = 1 << 20
_NAMED_MAX = 3

Size = Annotated[int, Meta(ge=1, le=1 << 24)]


class LlamaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `config.json` that decide what a Llama computes."""

    architectures: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4)]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Annotated[int, Meta(ge=1, le=1024)]
    num_attention_heads: Annotated[int, Meta(ge=1, le=1024)]
    num_key_value_heads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    head_dim: Annotated[int, Meta(ge=2, le=4096)] | None = None
    max_position_embeddings: Size
    rms_norm_eps: Annotated[float, Meta(gt=0, lt=1)] = 1e-6
    rope_theta: Annotated[float, Meta(gt=0)] = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    vocab_size: Size
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; as many as of queries where the config is silent."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Numbers in one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def shape(self) -> ModelShape:
        """Return its sizes."""
        return ModelShape(
            layers=self.num_hidden_layers,
            hidden=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.kv_heads,
            key_width=self.head_width,
            value_width=self.head_width,
            context=self.max_position_embeddings,
            vocab=self.vocab_size,
        )

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer, the first the main one."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose config, names, types and shapes agree; values are checked as they are read."""

    folder: Path
    architecture: str
    """As `config.json` names it, such as `LlamaForCausalLM`."""
    shape: ModelShape
    config: LlamaConfig | None
    """None for an architecture that the embedded converter does not know; `known()` raises `unknown` then."""
    unknown: Unsupported | None
    tensors: dict[str, Tensor]
    """Exactly those the config calls for, in its order; `lm_head.weight` only if it is not the embedding. All that
    the files hold, where the architecture is not known."""
    files: tuple[Path, ...]
    """All files that belong to the model; `digest` is of them."""
    tokenizer: Path | None
    """A SentencePiece model."""
    tokenizer_config: dict[str, Any]
    digest: Digest
    """Of the names and bytes of all files that were used."""

    def known(self) -> LlamaConfig:
        """Return the config, or raise `Unsupported` saying why the embedded converter cannot convert this."""
        if self.config is None or self.unknown is not None:
            raise self.unknown or Unsupported("unknown architecture", where=str(self.folder))
        return self.config

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(tensor.size_bytes // (4 if tensor.dtype == "F32" else 2) for tensor in self.tensors.values())


def open_checkpoint(folder: Path, *, on_hash: Callable[[int, int], None] | None = None) -> Checkpoint:
    """Open and check the checkpoint in `folder`. `on_hash(done_bytes, total_bytes)` reports while it is hashed.

    Raises `CheckpointBad` for damage and contradictions, `Unsupported` for what the converter does not know.
    """
    if not folder.is_dir():
        raise CheckpointBad("there is no such folder", where=str(folder))
    fields = _fields(folder)
    files, tensors = _tensors(folder)
    where = str(folder / "config.json")
    try:
        config, unknown = _config(fields, where), None
    except Unsupported as error:
        config, unknown = None, error
    tokenizer = None
    if config is not None:
        tensors = _exactly_expected(tensors, config, folder)
        try:
            tokenizer = _tokenizer(folder)
        except Unsupported as error:
            config, unknown = None, error
    shape = config.shape if config is not None else guess_shape(fields, where=where)
    beside = tuple(_inside(folder, name) for name in BESIDE if (folder / name).exists())
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        path = folder / "tokenizer_config.json"
        settings = parse_json(_read(path, CONFIG_BYTES_MAX), where=str(path))
    if (folder / "chat_template.jinja").exists():
        settings["chat_template"] = _text(folder / "chat_template.jinja")
    used = (*files, *beside)
    return Checkpoint(
        folder=folder,
        architecture=_named(fields),
        shape=shape,
        config=config,
        unknown=unknown,
        tensors=tensors,
        files=used,
        tokenizer=tokenizer,
        tokenizer_config=settings,
        digest=_digest(used, on_hash or (lambda _done, _total: None)),
    )


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor that a Llama of this config has, in the model's order."""
    hidden, ffn, width = config.hidden_size, config.intermediate_size, config.head_width
    queries, keys = config.num_attention_heads * width, config.kv_heads * width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (queries, hidden),
            f"{at}.self_attn.k_proj.weight": (keys, hidden),
            f"{at}.self_attn.v_proj.weight": (keys, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, queries),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (ffn, hidden),
            f"{at}.mlp.up_proj.weight": (ffn, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, ffn),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def _read(path: Path, bytes_max: int) -> bytes:
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
        return _read(path, CONFIG_BYTES_MAX).decode("utf-8")
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
    return parse_json(_read(path, CONFIG_BYTES_MAX), where=str(path))


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


def _config(fields: dict[str, Any], where: str) -> LlamaConfig:
    named = _named(fields)
    if named not in ARCHITECTURES:
        fix = f"the embedded converter knows {', '.join(ARCHITECTURES)}; the llama.cpp toolchain knows more"
        raise Unsupported(f"the architecture {named} is not supported", where=where, fix=fix)
    try:
        config = msgspec.convert(fields, LlamaConfig)
    except msgspec.ValidationError as error:
        raise CheckpointBad(f"{error}", where=where) from error
    if config.num_attention_heads % config.kv_heads:
        what = f"{config.num_attention_heads} heads do not divide by {config.kv_heads} key/value heads"
        raise CheckpointBad(what, where=where)
    if config.head_dim is None and config.hidden_size % config.num_attention_heads:
        what = f"hidden_size {config.hidden_size} does not divide by {config.num_attention_heads} heads"
        raise CheckpointBad(what, where=where)
    for wrong, what in (
        (config.attention_bias or config.mlp_bias, "biases in attention or feed-forward"),
        (config.hidden_act != "silu", f"the activation {config.hidden_act[:40]!r}"),
        (config.sliding_window is not None, "sliding-window attention"),
        (_scaling(config) not in ("default", "linear"), f"rope scaling of type {_scaling(config)[:40]!r}"),
        (config.head_width % 2 == 1, f"heads of odd width {config.head_width}"),
    ):
        if wrong:
            raise Unsupported(
                f"the embedded converter does not know {what}",
                where=where,
                fix="convert with the llama.cpp toolchain, or train a Llama without it",
            )
    return config


def _scaling(config: LlamaConfig) -> str:
    scaling = config.rope_scaling or {}
    return str(scaling.get("rope_type", scaling.get("type", "default")))


def _tensors(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """Return the weight files (and the index, if any) and all tensors in them."""
    if (folder / "model.safetensors.index.json").exists():
        return _sharded(folder)
    path = _inside(folder, "model.safetensors")
    if not path.exists():
        pickles = sorted(found.name for pattern in _PICKLES for found in folder.glob(pattern))
        if pickles:
            fix = "save the model as safetensors; reading a pickle can run any code"
            raise Unsupported(f"{pickles[0]} is a pickle, which is never opened", where=str(folder), fix=fix)
        raise CheckpointBad("there is no model.safetensors", where=str(folder))
    return [path], read_header(path)


def _sharded(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    index = _inside(folder, "model.safetensors.index.json")
    where = str(index)
    mapping = parse_json(_read(index, INDEX_BYTES_MAX), where=where).get("weight_map")
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


def _exactly_expected(tensors: dict[str, Tensor], config: LlamaConfig, folder: Path) -> dict[str, Tensor]:
    where = str(folder)
    # Old checkpoints carry the rotary frequencies, which follow from the config.
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    expected = expected_shapes(config)
    if missing := [name for name in expected if name not in tensors]:
        raise CheckpointBad(f"tensors are missing: {_some(missing)}", where=where)
    extra = [name for name in tensors if name not in expected]
    if config.tie_word_embeddings and "lm_head.weight" in extra:
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


def _tokenizer(folder: Path) -> Path:
    path = _inside(folder, "tokenizer.model")
    if not path.exists():
        if (folder / "tokenizer.json").exists():
            what = "only SentencePiece tokenizers (tokenizer.model) are supported, not tokenizer.json"
            raise Unsupported(what, where=str(folder), fix="save the tokenizer in its SentencePiece form")
        raise CheckpointBad("there is no tokenizer.model", where=str(folder))
    if path.stat().st_size > TOKENIZER_BYTES_MAX:
        raise CheckpointBad(f"larger than the {TOKENIZER_BYTES_MAX} bytes allowed", where=str(path))
    return path


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
