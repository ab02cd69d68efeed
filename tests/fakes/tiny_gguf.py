"""A random-weight Llama GGUF of a few hundred kilobytes: llama.cpp loads and runs it like any model.

It says nothing sensible, but it tokenizes (SentencePiece with byte fallback), applies a chat template, streams and
reports timings, so whatever needs a real inference child and no real answers can use it. Same arguments, same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_CONTROL = ("<|system|>", "<|user|>", "<|assistant|>")
_LETTERS = "\u2581abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyShape:
    """Sizes of the model; `embedding` must divide by `heads` and by 32. The defaults load in milliseconds."""

    embedding: int = 64
    feed_forward: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    context: int = 512


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Return tokens, scores and SentencePiece types (unknown, control, byte, normal, user defined)."""
    tokens = ["<unk>", "<s>", "</s>", *_CONTROL]
    types = [2, 3, 3, 4, 4, 4]
    scores = [0.0] * 6
    tokens += [f"<0x{b:02X}>" for b in range(256)]
    types += [6] * 256
    scores += [0.0] * 256
    pieces = [*_LETTERS, "th", "the", "\u2581the", "in", "er", "\u2581s", "\u2581o", "op", "en"]
    tokens += pieces
    types += [1] * len(pieces)
    scores += [-float(i) for i in range(len(pieces))]
    return tokens, scores, types


def write_tiny_gguf(path: Path, *, seed: int = 1, shape: TinyShape | None = None) -> Path:
    """Write the model to `path` and return it; weights are normal with a small spread, drawn from `seed`."""
    shape = shape if shape is not None else TinyShape()
    tokens, scores, types = vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    random = np.random.default_rng(seed)
    kv = shape.embedding * shape.kv_heads // shape.heads

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, (random.standard_normal((rows, columns)) * 0.2).astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.embedding, dtype=np.float32))

    matrix("token_embd.weight", len(tokens), shape.embedding)
    norm("output_norm.weight")
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", shape.embedding, shape.embedding)
        matrix(f"{block}.attn_k.weight", kv, shape.embedding)
        matrix(f"{block}.attn_v.weight", kv, shape.embedding)
        matrix(f"{block}.attn_output.weight", shape.embedding, shape.embedding)
        norm(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", shape.feed_forward, shape.embedding)
        matrix(f"{block}.ffn_up.weight", shape.feed_forward, shape.embedding)
        matrix(f"{block}.ffn_down.weight", shape.embedding, shape.feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
