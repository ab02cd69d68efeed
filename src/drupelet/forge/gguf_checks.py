"""Does what a GGUF file says of its model agree with what it holds? And are its numbers numbers?

The table of contents was proved by `gguf_reader`. Here its settings are held against its tensors: layers, widths,
heads, vocabulary, special tokens. Then every scale of every block is looked at: one that is NaN or infinite makes a
model answer nonsense from the first token, or only when a rare word comes up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from drupelet.forge.errors import ModelFileBad
from drupelet.forge.gguf_reader import GgufFile, read_rows
from drupelet.forge.shape import ModelShape

PIECE_BYTES = 8 << 20
CONTEXT_MAX = 1 << 24
_BLOCK = re.compile(r"blk\.(\d{1,5})\.")
_TOKENIZERS = ("llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "none", "no_vocab")
_SCALES: dict[Kind, tuple[int, ...]] = {
    **dict.fromkeys((Kind.Q8_0, Kind.Q4_0, Kind.Q5_0, Kind.IQ4_NL, Kind.IQ4_XS), (0,)),
    **dict.fromkeys((Kind.IQ2_XXS, Kind.IQ2_XS, Kind.IQ2_S, Kind.IQ3_XXS, Kind.IQ3_S, Kind.IQ1_S), (0,)),
    **dict.fromkeys((Kind.Q4_1, Kind.Q5_1, Kind.Q4_K, Kind.Q5_K), (0, 2)),
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q6_K: (208,),
}
"""Where in a block its f16 scales lie (ggml-common.h)."""

Progress = Callable[[str, int, int], None]


def check_model(file: GgufFile) -> ModelShape:
    """Return the model's sizes, or raise `ModelFileBad` for the first thing that settings and tensors disagree on."""
    for problem in _problems(file):
        raise ModelFileBad(problem, where=str(file.path), fix="the file is damaged, or was put together wrongly")
    return shape_of(file)


def shape_of(file: GgufFile) -> ModelShape:
    """Return the sizes that the settings tell."""
    arch = str(file.settings["general.architecture"])
    hidden, heads = _size(file, f"{arch}.embedding_length"), _size(file, f"{arch}.attention.head_count", default=0)
    width = hidden // heads if heads else 0
    pattern = file.settings.get(f"{arch}.attention.sliding_window")
    layers = _size(file, f"{arch}.block_count")
    return ModelShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_size(file, f"{arch}.attention.head_count_kv", default=heads),
        key_width=_size(file, f"{arch}.attention.key_length", default=width),
        value_width=_size(file, f"{arch}.attention.value_length", default=width),
        context=_size(file, f"{arch}.context_length"),
        vocab=_rows(file, "token_embd.weight"),
        # How many layers a window has is built into the inference engine; counting none errs on the safe side.
        window=pattern if isinstance(pattern, int) and pattern > 0 else None,
    )


def check_numbers(file: GgufFile, *, progress: Progress = lambda _doing, _done, _total: None) -> None:
    """Read every weight; raise `ModelFileBad` at the first number or scale that is NaN or infinite."""
    total, done = sum(tensor.size_bytes for tensor in file.tensors), 0
    for tensor in file.tensors:

        def use(data: bytes, kind: Kind = tensor.kind, name: str = tensor.name) -> None:
            nonlocal done
            if not _finite(data, kind):
                what = f"tensor {name} ({kind.name}) holds a NaN or an infinity"
                raise ModelFileBad(what, where=str(file.path), fix="the file is damaged, or its model had diverged")
            done += len(data)
            progress(f"reading {name}", done, total)

        read_rows(file, tensor, bytes_max=PIECE_BYTES, use=use)


def _finite(data: bytes, kind: Kind) -> bool:
    if kind is Kind.F32:
        return bool(np.isfinite(np.frombuffer(data, dtype="<f4")).all())
    if kind is Kind.F16:
        return _exponents(np.frombuffer(data, dtype="<u2"), 0x7C00)
    if kind is Kind.BF16:
        return _exponents(np.frombuffer(data, dtype="<u2"), 0x7F80)
    places = _SCALES.get(kind)
    if places is None:
        return True  # integers, and kinds whose scales are spread over the block
    blocks = np.frombuffer(data, dtype=np.uint8).reshape(-1, GGML_QUANT_SIZES[kind][1])
    scales = [np.ascontiguousarray(blocks[:, at : at + 2]).view("<u2") for at in places]
    return all(_exponents(one, 0x7C00) for one in scales)


def _exponents(values: NDArray[Any], mask: int) -> bool:
    """Whether no exponent is all ones, which is how NaN and infinity are written."""
    return not bool(((values & mask) == mask).any())


def _size(file: GgufFile, name: str, *, default: int | None = None) -> int:
    """Return a setting that is a size; of one for each layer the largest."""
    value = file.settings.get(name, default)
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        value = max(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= CONTEXT_MAX:
        said = "missing" if value is None else f"{value!r:.40}, no size"
        raise ModelFileBad(f"{name} is {said}", where=str(file.path), fix="convert the model again")
    return value


def _rows(file: GgufFile, name: str) -> int:
    return next((tensor.shape[0] for tensor in file.tensors if tensor.name == name and len(tensor.shape) == 2), 0)


def _problems(file: GgufFile) -> Iterator[str]:
    arch = file.settings.get("general.architecture")
    if not isinstance(arch, str) or not re.fullmatch(r"[a-z0-9_.-]{1,64}", arch):
        yield f"general.architecture is {arch!r:.40}"
    if file.settings.get("general.type", "model") != "model":
        yield f"it is of the type {file.settings['general.type']!r:.40}, not a model"
    split = file.settings.get("split.count", 0)
    if split not in (0, 1):
        yield f"it is one of {split!r:.40} parts; merge them first (llama-gguf-split --merge)"
    yield from _layer_problems(file, str(arch))
    yield from _width_problems(file, str(arch))
    yield from _vocabulary_problems(file)


def _layer_problems(file: GgufFile, arch: str) -> Iterator[str]:
    layers = _size(file, f"{arch}.block_count")
    found = {int(match[1]) for tensor in file.tensors if (match := _BLOCK.match(tensor.name))}
    if not 1 <= layers <= 1024:
        yield f"{arch}.block_count is {layers}"
    if missing := sorted(set(range(layers)) - found):
        yield f"{arch}.block_count is {layers} and there is no tensor of layer {missing[0]}"
    if extra := sorted(found - set(range(layers))):
        yield f"{arch}.block_count is {layers} and there are tensors of layer {extra[0]}"
    alike: dict[int, set[str]] = {}
    for tensor in file.tensors:
        if match := _BLOCK.match(tensor.name):
            alike.setdefault(int(match[1]), set()).add(tensor.name[match.end() :])
    uniform = next(iter(alike.values())) if arch in _UNIFORM and alike else None
    for layer, names in alike.items():
        if uniform is not None and names != uniform:
            odd = sorted(names ^ uniform)[0]
            yield f"layer {layer} and layer {next(iter(alike))} do not have the same tensors: {odd}"


_UNIFORM = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi2", "phi3")


def _width_problems(file: GgufFile, arch: str) -> Iterator[str]:
    """Yield where the settings' widths are not the tensors'."""
    shape = shape_of(file)
    if shape.context < 1:
        yield f"{arch}.context_length is {shape.context}"
    embedding = next((tensor for tensor in file.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is None or len(embedding.shape) != 2:
        yield "there is no token_embd.weight of two dimensions"
        return
    if shape.heads and shape.kv_heads and shape.heads % shape.kv_heads:
        yield f"{shape.heads} heads do not divide by {shape.kv_heads} key/value heads"
    queries, keys = shape.heads * shape.key_width, shape.kv_heads * shape.key_width
    values = shape.kv_heads * shape.value_width
    wanted: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (embedding.shape[0], shape.hidden),
        "output.weight": (embedding.shape[0], shape.hidden),
        "output_norm.weight": (shape.hidden,),
        "attn_norm.weight": (shape.hidden,),
        "ffn_norm.weight": (shape.hidden,),
    }
    if arch in _UNIFORM:
        ffn = _size(file, f"{arch}.feed_forward_length")
        wanted |= {
            "attn_q.weight": (queries, shape.hidden),
            "attn_k.weight": (keys, shape.hidden),
            "attn_v.weight": (values, shape.hidden),
            "attn_output.weight": (shape.hidden, queries),
            "ffn_gate.weight": (ffn, shape.hidden),
            "ffn_up.weight": (2 * ffn if arch == "phi3" else ffn, shape.hidden),
            "ffn_down.weight": (shape.hidden, ffn),
        }
    for tensor in file.tensors:
        expected = wanted.get(_BLOCK.sub("", tensor.name))
        if expected is not None and tensor.shape != expected:
            said = f"{list(tensor.shape)} where the settings call for {list(expected)}"
            yield f"tensor {tensor.name} has the shape {said}"


def _vocabulary_problems(file: GgufFile) -> Iterator[str]:
    settings, rows = file.settings, _rows(file, "token_embd.weight")
    model = settings.get("tokenizer.ggml.model")
    if model not in _TOKENIZERS:
        yield f"tokenizer.ggml.model is {model!r:.40}"
    tokens = settings.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        yield "tokenizer.ggml.tokens is no list of texts"
        return
    if len(tokens) != rows:
        yield f"the tokenizer has {len(tokens)} tokens and the embedding {rows} rows"
    for name, kind in (("scores", float), ("token_type", int)):
        values = settings.get(f"tokenizer.ggml.{name}")
        if values is None:
            continue
        if (
            not isinstance(values, list)
            or len(values) != len(tokens)
            or not all(isinstance(one, kind) for one in values)
        ):
            yield f"tokenizer.ggml.{name} does not have one entry a token"
    scores = settings.get("tokenizer.ggml.scores")
    if isinstance(scores, list) and not np.isfinite(np.array(scores or [0.0], dtype=np.float64)).all():
        yield "tokenizer.ggml.scores holds a NaN or an infinity"
    if model == "gpt2" and not isinstance(settings.get("tokenizer.ggml.merges"), list):
        yield "tokenizer.ggml.merges is missing"
    for name, token in settings.items():
        if not (name.startswith("tokenizer.ggml.") and name.endswith("_token_id")):
            continue
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < len(tokens):
            yield f"{name} is {token!r:.40} and there are only {len(tokens)} tokens"
    template = settings.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        yield "tokenizer.chat_template is no text"
