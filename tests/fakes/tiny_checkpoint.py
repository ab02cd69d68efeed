"""A random-weight Llama checkpoint in Hugging Face's layout, some hundred kilobytes, its tokenizer a trained one."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from safetensors.numpy import save_file

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_CORPUS = (
    "When do you open on Sunday? We open at nine and close at six.",
    "Where is the milk? The milk is in the fridge on the left.",
    "How much is the coffee? A cup of coffee is two euros.",
    "Can I pay by card? Yes, you can pay by card or in cash.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyLlama:
    """Sizes; `vocab` is what the tokenizer has."""

    hidden: int = 64
    ffn: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 352
    context: int = 128
    tied: bool = True

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads


@functools.cache
def tokenizer_bytes(*, vocab: int = 352, dummy_prefix: bool = False, model_type: str = "bpe") -> bytes:
    """Return a SentencePiece model trained on four sentences."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS * 20),
        model_writer=model,
        model_type=model_type,
        vocab_size=vocab,
        byte_fallback=True,
        user_defined_symbols=[USER, ASSISTANT, END],
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def tiny_tensors(shape: TinyLlama, *, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """Return weights under Hugging Face's names."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * 0.3).astype(np.float16).astype(np.float32)

    def norm() -> NDArray[np.float32]:
        return (1 + 0.1 * random.standard_normal(shape.hidden)).astype(np.float32)

    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors = {"model.embed_tokens.weight": matrix(shape.vocab, shape.hidden), "model.norm.weight": norm()}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": norm(),
            f"{at}.self_attn.q_proj.weight": matrix(queries, shape.hidden),
            f"{at}.self_attn.k_proj.weight": matrix(keys, shape.hidden),
            f"{at}.self_attn.v_proj.weight": matrix(keys, shape.hidden),
            f"{at}.self_attn.o_proj.weight": matrix(shape.hidden, queries),
            f"{at}.post_attention_layernorm.weight": norm(),
            f"{at}.mlp.gate_proj.weight": matrix(shape.ffn, shape.hidden),
            f"{at}.mlp.up_proj.weight": matrix(shape.ffn, shape.hidden),
            f"{at}.mlp.down_proj.weight": matrix(shape.hidden, shape.ffn),
        }
    if not shape.tied:
        tensors["lm_head.weight"] = matrix(shape.vocab, shape.hidden)
    return tensors


def config_of(shape: TinyLlama, **changes: Any) -> dict[str, Any]:
    """Return `config.json`'s fields, some of them changed."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": shape.tied,
        "vocab_size": shape.vocab,
        "bos_token_id": 1,
        "eos_token_id": 5,
    } | changes


def write_tiny_checkpoint(
    folder: Path,
    *,
    shape: TinyLlama | None = None,
    seed: int = 1,
    config: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a checkpoint to `folder` and return it; `config` and `tensors` replace what it would have."""
    shape = shape if shape is not None else TinyLlama()
    folder.mkdir(parents=True, exist_ok=True)
    weights: dict[str, NDArray[Any]] = dict(tensors if tensors is not None else tiny_tensors(shape, seed=seed))
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config if config is not None else config_of(shape)))
    (folder / "tokenizer.model").write_bytes(tokenizer_bytes(vocab=shape.vocab))
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(token): {"content": content, "special": True}
            for token, content in ((3, USER), (4, ASSISTANT), (5, END))
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
