"""A small sound GGUF, part by part, so that a test can make each part lie."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

U32, F32, BOOL, TEXT, LIST = 4, 6, 7, 8, 9
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "c", "d", "e"]


@dataclass(slots=True)
class Piece:
    """A tensor to be: sizes as GGUF writes them, rows last."""

    name: str
    sizes: list[int]
    kind: int
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class RudeGguf:
    """What is written, all of it a test's to change. None counts what is there."""

    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    setting_count: int | None = None
    settings: list[tuple[str, int, Any]] = field(default_factory=list)
    tensors: list[Piece] = field(default_factory=list)
    tail: bytes = b""

    def put(self, name: str, kind: int, value: Any) -> None:
        """Replace a setting, or add it."""
        self.settings = [one for one in self.settings if one[0] != name] + [(name, kind, value)]

    def drop(self, name: str) -> None:
        """Leave a setting out."""
        self.settings = [one for one in self.settings if one[0] != name]

    def tensor(self, name: str) -> Piece:
        """Return one tensor."""
        return next(one for one in self.tensors if one.name == name)

    def head(self) -> bytes:
        """Return all before the weights, without padding."""
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.settings) if self.setting_count is None else self.setting_count,
        )
        out = [self.magic, struct.pack("<IQQ", self.version, *counts)]
        for name, kind, value in self.settings:
            out += [_text(name), struct.pack("<I", kind), _value(kind, value)]
        for one in self.tensors:
            out += [
                _text(one.name),
                struct.pack("<I", len(one.sizes)),
                *(struct.pack("<Q", size) for size in one.sizes),
            ]
            out.append(struct.pack("<IQ", one.kind, one.offset))
        return b"".join(out)

    def to_bytes(self) -> bytes:
        """Return the file."""
        head = self.head()
        body = bytearray()
        for one in self.tensors:
            body += one.data + bytes(-len(one.data) % 32)
        return head + bytes(-len(head) % 32) + bytes(body) + self.tail


def small_gguf(*, kind: Kind = Kind.Q8_0, layers: int = 2) -> RudeGguf:
    """Return a Llama of 32 numbers a token and 8 tokens; sound in every part."""
    made = RudeGguf()
    for name, value in (
        ("block_count", layers),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ):
        made.put(f"llama.{name}", U32, value)
    made.put("general.architecture", TEXT, "llama")
    made.put("general.file_type", U32, {Kind.F16: 1, Kind.Q4_0: 2, Kind.Q8_0: 7}.get(kind, 0))
    made.put("llama.attention.layer_norm_rms_epsilon", F32, 1e-5)
    made.put("tokenizer.ggml.model", TEXT, "llama")
    made.put("tokenizer.ggml.tokens", LIST, (TEXT, TOKENS))
    made.put("tokenizer.ggml.scores", LIST, (F32, [0.0] * 8))
    made.put("tokenizer.ggml.token_type", LIST, (U32 + 1, [2, 3, 3, 1, 1, 1, 1, 1]))
    made.put("tokenizer.ggml.eos_token_id", U32, 2)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (8, 32), "output_norm.weight": (32,)}
    for layer in range(layers):
        at = f"blk.{layer}"
        shapes |= {f"{at}.attn_norm.weight": (32,), f"{at}.ffn_norm.weight": (32,)}
        shapes |= {f"{at}.attn_q.weight": (32, 32), f"{at}.attn_k.weight": (16, 32), f"{at}.attn_v.weight": (16, 32)}
        shapes |= {f"{at}.attn_output.weight": (32, 32), f"{at}.ffn_gate.weight": (64, 32)}
        shapes |= {f"{at}.ffn_up.weight": (64, 32), f"{at}.ffn_down.weight": (32, 64)}
    random, offset = np.random.default_rng(3), 0
    for name, shape in shapes.items():
        chosen = Kind.F32 if len(shape) == 1 else kind
        block, size = GGML_QUANT_SIZES[chosen]
        count = math.prod(shape) // block
        if chosen is Kind.F32:
            data = random.standard_normal(shape).astype("<f4").tobytes()
        elif chosen is Kind.F16:
            data = random.standard_normal(shape).astype("<f2").tobytes()
        else:
            blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
            blocks[:, :2] = np.frombuffer(np.array([0.01], dtype="<f2").tobytes(), dtype=np.uint8)
            data = blocks.tobytes()
        made.tensors.append(Piece(name, list(reversed(shape)), int(chosen), offset, data))
        offset += len(data) + -len(data) % 32
    return made


Damage = Callable[[RudeGguf], object]


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value  # raw, to lie with
    if kind == TEXT:
        return _text(value)
    if kind == LIST:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, item) for item in items)
    form = {0: "<B", 1: "<b", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}[kind]
    return struct.pack(form, value)
