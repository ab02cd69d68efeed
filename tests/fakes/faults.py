"""The planted faults: what a broken converter, quantizer or merge would write, made by surgery on sound files.

A fault is planted either in one variant, with a sound reference beside it, or in every file alike, reference and all,
as a converter's own fault would be. Honest variants are made by the same surgery, and must pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type

from tests.fakes.gguf_surgery import Body, Change, quantized

LLAMA2_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] }}{% endif %}{% endfor %}"
)
EPS, BASE, EOS, TOKENS = (
    "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.tokens",
)  # fmt: skip
_WIDTH = 32
"""Of a head of the kiosk."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: in words, what it does, and in which files."""

    words: str
    change: Change
    quantization: str = "q8_0"
    everywhere: bool = False
    """Whether the reference has it too."""


def zero_block(body: Body) -> None:
    """The scale of one block of 32 weights is lost."""
    body.tensors["blk.1.ffn_down.weight"].data[7, 0:2] = 0


def zero_block_anywhere(body: Body) -> None:
    """A block of 32 weights is lost, whatever the file's kind."""
    part = body.tensors["blk.1.ffn_down.weight"]
    values = part.floats()
    values[7, 0:32] = 0
    part.put(values)


def swap_layers(body: Body) -> None:
    """Layers 1 and 2 change places."""
    for name in [name for name in body.tensors if name.startswith("blk.1.")]:
        other = name.replace("blk.1.", "blk.2.")
        body.tensors[name], body.tensors[other] = body.tensors[other], body.tensors[name]


def rope_base(body: Body) -> None:
    """Another model's rope base."""
    body.set(BASE, 500_000.0)


def template(body: Body) -> None:
    """Another model's chat template."""
    body.set("tokenizer.chat_template", LLAMA2_TEMPLATE)


def no_end(body: Body) -> None:
    """The end token is another one, and the marker that ends a turn is plain text."""
    types = list(body.get("tokenizer.ggml.token_type"))
    types[5] = 1
    body.set("tokenizer.ggml.token_type", types)
    tokens = list(body.get(TOKENS))
    tokens[5] = "<|fin|>"
    body.set(TOKENS, tokens)
    body.set(EOS, 2)


def byte_swap(body: Body) -> None:
    """One tensor was written big-endian."""
    part = body.tensors["blk.0.attn_v.weight"]
    part.put(part.floats().astype(np.float16).byteswap().astype(np.float32))


def shifted_quants(body: Body) -> None:
    """The 4-bit numbers of one matrix lie one place further in their blocks."""
    data = body.tensors["blk.2.ffn_up.weight"].data
    blocks = data.reshape(data.shape[0], -1, 18)
    blocks[..., 2:] = np.roll(blocks[..., 2:], 1, axis=-1)


def tokens_off_by_one(body: Body) -> None:
    """Each token's text stands under the next one's number, after the markers and bytes."""
    for name in (TOKENS, "tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        values = list(body.get(name))
        body.set(name, [*values[:262], values[-1], *values[262:-1]])


def truncated_vocabulary(body: Body) -> None:
    """The last 24 tokens and their rows are missing."""
    for name in (TOKENS, "tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        body.set(name, list(body.get(name))[:-24])
    body.set("llama.vocab_size", body.get("llama.vocab_size") - 24)
    part = body.tensors["token_embd.weight"]
    part.data = part.data[:-24]


def noise_adapter(body: Body) -> None:
    """An adapter of noise was merged: rank 8, a quarter of the matrices' size."""
    random = np.random.default_rng(5)
    for layer in range(3):
        for name in (f"blk.{layer}.attn_q.weight", f"blk.{layer}.attn_v.weight"):
            part = body.tensors[name]
            values = part.floats()
            low = random.standard_normal((values.shape[0], 8)) @ random.standard_normal((8, values.shape[1]))
            part.put(values + low * (0.25 * np.linalg.norm(values) / np.linalg.norm(low)))


def transpose(body: Body) -> None:
    """A square matrix is transposed."""
    part = body.tensors["blk.1.attn_output.weight"]
    part.put(part.floats().T)


def norm_epsilon(body: Body) -> None:
    """The norm's epsilon is a hundred times too large and more."""
    body.set(EPS, 0.05)


def zero_head(body: Body) -> None:
    """One head of one layer says nothing."""
    part = body.tensors["blk.0.attn_output.weight"]
    values = part.floats()
    values[:, 3 * _WIDTH : 4 * _WIDTH] = 0
    part.put(values)


def saturated_scale(body: Body) -> None:
    """One block's scale overflowed f16."""
    body.tensors["blk.2.attn_k.weight"].data[9, 0:2] = np.frombuffer(np.float16(65504).tobytes(), np.uint8)


def bos_flag(body: Body) -> None:
    """Every text is given a begin token that the model never saw."""
    body.set("tokenizer.ggml.add_bos_token", True)


def not_reordered(body: Body) -> None:
    """Queries and keys keep Hugging Face's order of rows."""
    for layer in range(3):
        for name in (f"blk.{layer}.attn_q.weight", f"blk.{layer}.attn_k.weight"):
            part = body.tensors[name]
            values = part.floats()
            heads = values.reshape(-1, _WIDTH // 2, 2, values.shape[1]).swapaxes(1, 2)
            part.put(heads.reshape(values.shape))


def swapped_rows(body: Body) -> None:
    """Two rare tokens have each other's embedding: no prompt here contains them."""
    data = body.tensors["token_embd.weight"].data
    data[[200, 201]] = data[[201, 200]]


def flipped_row(body: Body) -> None:
    """One token's row has the wrong sign."""
    part = body.tensors["token_embd.weight"]
    values = part.floats()
    values[700] = -values[700]
    part.put(values)


def lost_norms(body: Body) -> None:
    """A layer's norm weights are all one, as a fresh model's are."""
    part = body.tensors["blk.1.ffn_norm.weight"]
    part.data = np.ones_like(part.data)


def not_a_number(body: Body) -> None:
    """One number of a norm is none."""
    part = body.tensors["blk.0.attn_norm.weight"]
    part.data[..., 5] = np.nan


def kv_heads_shared_wrongly(body: Body) -> None:
    """Keys of neighbouring groups change places, values do not."""
    part = body.tensors["blk.0.attn_k.weight"]
    part.put(part.floats().reshape(2, 2, _WIDTH, -1)[:, ::-1].reshape(part.data.shape[0], -1))


FAULTS: Mapping[str, Fault] = {
    "block-scale-zero": Fault("one block's scale is zero", zero_block),
    "block-zero-everywhere": Fault("one block is zero, in every file", zero_block_anywhere, everywhere=True),
    "layers-swapped": Fault("two layers swapped", swap_layers),
    "layers-swapped-everywhere": Fault("two layers swapped, in every file", swap_layers, everywhere=True),
    "rope-base": Fault("wrong rope base", rope_base),
    "rope-base-everywhere": Fault("wrong rope base, in every file", rope_base, everywhere=True),
    "chat-template": Fault("wrong chat template", template),
    "chat-template-everywhere": Fault("wrong chat template, in every file", template, everywhere=True),
    "missing-eos": Fault("the end token is not known", no_end),
    "missing-eos-everywhere": Fault("the end token is not known, in every file", no_end, everywhere=True),
    "byte-swapped": Fault("one tensor byte-swapped", byte_swap),
    "shifted-q4": Fault("one matrix's 4-bit numbers shifted by one", shifted_quants, "q4_0"),
    "tokens-off-by-one": Fault("tokenizer off by one", tokens_off_by_one),
    "tokens-off-by-one-everywhere": Fault("tokenizer off by one, in every file", tokens_off_by_one, everywhere=True),
    "truncated-vocabulary": Fault("the last 24 tokens are missing", truncated_vocabulary),
    "noise-adapter": Fault("an adapter of noise merged in", noise_adapter),
    "transposed-everywhere": Fault("one matrix transposed, in every file", transpose, everywhere=True),
    "norm-epsilon-everywhere": Fault("wrong norm epsilon, in every file", norm_epsilon, everywhere=True),
    "head-zero": Fault("one head zeroed", zero_head),
    "scale-saturated": Fault("one block's scale saturated", saturated_scale),
    "bos-flag-everywhere": Fault("wrong begin-token flag, in every file", bos_flag, everywhere=True),
    "not-reordered-everywhere": Fault("queries and keys not reordered, in every file", not_reordered, everywhere=True),
    "rows-swapped": Fault("two rare embedding rows swapped", swapped_rows),
    "rows-swapped-everywhere": Fault("two rare embedding rows swapped, in every file", swapped_rows, everywhere=True),
    "row-sign": Fault("one output row's sign flipped", flipped_row),
    "norms-lost": Fault("a layer's norm weights lost", lost_norms),
    "norms-lost-everywhere": Fault("a layer's norm weights lost, in every file", lost_norms, everywhere=True),
    "not-a-number": Fault("a NaN in a norm", not_a_number),
    "keys-swapped-everywhere": Fault(
        "two groups' keys swapped, in every file", kv_heads_shared_wrongly, everywhere=True
    ),
}


def describe(body: Body) -> None:
    """Other words about the file."""
    body.fields["general.description"] = (Type.STRING, "the shop's assistant", None)
    body.set("general.name", "another name")


def shuffle(body: Body) -> None:
    """The tensors lie in another order."""
    body.tensors = dict(sorted(body.tensors.items(), reverse=True))


def _then(*changes: Change) -> Change:
    def change(body: Body) -> None:
        for one in changes:
            one(body)

    return change


@dataclass(frozen=True, slots=True)
class Honest:
    """An honest variant: of which version, made how, held to whose budget, with how many threads."""

    version: str
    change: Change
    budget: str
    threads: int = 1


_KINDS: Mapping[str, tuple[Change, str]] = {
    "f32": (quantized(Kind.F32), "q8_0"),
    "f16": (describe, "q8_0"),
    "bf16": (quantized(Kind.BF16), "q8_0"),
    "q8_0": (quantized(Kind.Q8_0), "q8_0"),
    "q5_1": (quantized(Kind.Q5_1, Kind.Q8_0), "q4_0"),
    "q5_0": (quantized(Kind.Q5_0, Kind.Q8_0), "q4_0"),
    "q4_1": (quantized(Kind.Q4_1, Kind.Q8_0), "q4_0"),
    "q4_0": (quantized(Kind.Q4_0, Kind.Q8_0), "q4_0"),
}
HONEST: Mapping[str, Honest] = {
    **{
        f"{version} {name}": Honest(version, change, budget)
        for version in ("1.1", "1.2")
        for name, (change, budget) in _KINDS.items()
    },
    "1.2 q8_0, 2 threads": Honest("1.2", quantized(Kind.Q8_0), "q8_0", threads=2),
    "1.2 q4_0, 2 threads": Honest("1.2", quantized(Kind.Q4_0, Kind.Q8_0), "q4_0", threads=2),
    "1.2 q8_0, other name and description": Honest("1.2", _then(quantized(Kind.Q8_0), describe), "q8_0"),
    "1.2 q8_0, tensors in another order": Honest("1.2", _then(quantized(Kind.Q8_0), shuffle), "q8_0"),
    "1.2 q4_0, embedding in f16": Honest("1.2", quantized(Kind.Q4_0, Kind.F16), "q4_0"),
}
