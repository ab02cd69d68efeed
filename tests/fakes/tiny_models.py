"""Seeded checkpoints of a few hundred kilobytes, one for each architecture and kind of tokenizer the converter knows.

Names and shapes are Hugging Face's; `scripts/golden_convert.py` lets its own classes load every one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drupelet.forge.architectures import open_decoder
from tests.fakes.tiny_checkpoint import ASSISTANT, CHAT_TEMPLATE, END, USER, tokenizer_bytes
from tests.fakes.tiny_tokenizers import bpe_json, pieces_json

MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_MARKERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|finish|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """One checkpoint to be. `tokenizer` is `spm`, `pieces` (SentencePiece as json) or llama.cpp's name of a BPE."""

    architecture: str
    tokenizer: str
    config: Mapping[str, Any] = field(default_factory=dict)
    vocab: int = 352
    bf16: bool = False
    seed: int = 7
    generation: Mapping[str, Any] = field(default_factory=dict)


def _bpe(architecture: str, tokenizer: str, **config: Any) -> TinyModel:
    return TinyModel(architecture=architecture, tokenizer=tokenizer, config=config, vocab=512)


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_GEMMA = {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
_LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0],
}

TOKENS = [1, 70, 280, 301, 5, 4, 290, 100, 339, 12, 12, 200]
"""A sequence to compute logits for."""

TINY_MODELS: Mapping[str, TinyModel] = {
    "llama": TinyModel(architecture="LlamaForCausalLM", tokenizer="spm", config={"rope_theta": 10_000.0}),
    "llama-biased": TinyModel(
        architecture="LlamaForCausalLM",
        tokenizer="spm",
        config={"attention_bias": True, "mlp_bias": True, "head_dim": 32, "tie_word_embeddings": True},
    ),
    "llama3": TinyModel(
        architecture="LlamaForCausalLM",
        tokenizer="llama-bpe",
        vocab=512,
        bf16=True,
        config={"rope_theta": 500_000.0, "rope_scaling": _LLAMA3_ROPE, "tie_word_embeddings": True},
        generation={"eos_token_id": [477, 478, 479]},
    ),
    "smollm": _bpe("LlamaForCausalLM", "smollm", num_attention_heads=8, num_key_value_heads=8),
    "mistral": TinyModel(architecture="MistralForCausalLM", tokenizer="spm", config={"sliding_window": None}),
    "mistral-nemo": _bpe("MistralForCausalLM", "tekken", head_dim=32, sliding_window=None),
    "qwen2": _bpe("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, rope_theta=1_000_000.0),
    "qwen2-yarn": _bpe("Qwen2ForCausalLM", "qwen2", rope_scaling=_YARN, rope_theta=1_000_000.0),
    "qwen3": _bpe("Qwen3ForCausalLM", "qwen2", head_dim=32, tie_word_embeddings=True, rope_theta=1_000_000.0),
    "gemma": TinyModel(architecture="GemmaForCausalLM", tokenizer="spm", config=_GEMMA, bf16=True),
    "gemma2": TinyModel(
        architecture="Gemma2ForCausalLM",
        tokenizer="spm",
        bf16=True,
        config=_GEMMA | {"query_pre_attn_scalar": 16, "sliding_window": 64, "num_hidden_layers": 3},
    ),
    "gemma3": TinyModel(
        architecture="Gemma3ForCausalLM",
        tokenizer="spm",
        bf16=True,
        config=_GEMMA
        | {"query_pre_attn_scalar": 16, "sliding_window": 4, "num_hidden_layers": 7, "rope_theta": 1_000_000.0}
        | {"rope_local_base_freq": 10_000.0, "sliding_window_pattern": 6},
    ),
    "gemma3-sees": TinyModel(
        architecture="Gemma3ForConditionalGeneration",
        tokenizer="spm",
        bf16=True,
        config={
            "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1},
            "text_config": _SIZES
            | {"model_type": "gemma3_text", "vocab_size": 352, "head_dim": 16, "query_pre_attn_scalar": 16}
            | {"num_hidden_layers": 6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 8},
        },
    ),
    "phi2": _bpe(
        "PhiForCausalLM",
        "gpt-2",
        intermediate_size=256,
        num_key_value_heads=4,
        hidden_act="gelu_new",
        partial_rotary_factor=0.5,
        layer_norm_eps=1e-5,
    ),
    "phi3": TinyModel(
        architecture="Phi3ForCausalLM",
        tokenizer="spm",
        config={"original_max_position_embeddings": 256, "sliding_window": 2047},
    ),
    "phi3-long": _bpe(
        "Phi3ForCausalLM",
        "gpt-4o",
        rope_scaling=_LONG,
        max_position_embeddings=1024,
        original_max_position_embeddings=256,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
    ),
    "phi4": _bpe("Phi3ForCausalLM", "dbrx", original_max_position_embeddings=256, sliding_window=None),
    "llama-pieces": TinyModel(architecture="LlamaForCausalLM", tokenizer="pieces"),
}


def write_tiny_model(folder: Path, name: str, **changes: Any) -> Path:
    """Write one of `TINY_MODELS` into `folder` and return it; `changes` replace keys of its config."""
    tiny = TINY_MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = _SIZES | {
        "architectures": [tiny.architecture],
        "model_type": _model_type(tiny.architecture),
        "vocab_size": tiny.vocab,
        "torch_dtype": "bfloat16" if tiny.bf16 else "float16",
    }
    config |= {"rms_norm_eps": 1e-6} | dict(tiny.config) | _special_ids(tiny) | changes
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    if tiny.generation:
        (folder / "generation_config.json").write_text(json.dumps(dict(tiny.generation)))
    _write_tokenizer(folder, tiny)
    shapes = open_decoder(tiny.architecture, config, where="config.json").expected()
    tensors = {key: _values(key, shape, tiny) for key, shape in shapes.items()}
    if "vision_config" in config:
        tensors = {f"language_model.{key}": values for key, values in tensors.items()}
        tensors["vision_tower.vision_model.embeddings.position_embedding.weight"] = np.zeros((4, 32), np.float32)
    save(folder / "model.safetensors", tensors, tiny.bf16)
    return folder


def save(path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], bf16: bool) -> None:
    """Write a safetensors file, in bfloat16 (which numpy has not) or float16."""
    header, blobs, position = {}, [], 0
    for name, values in tensors.items():
        data = (values.view(np.uint32) >> 16).astype("<u2") if bf16 else values.astype("<f2")
        blob = data.tobytes()
        header[name] = {
            "dtype": "BF16" if bf16 else "F16",
            "shape": list(values.shape),
            "data_offsets": [position, position + len(blob)],
        }
        blobs.append(blob)
        position += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def _values(name: str, shape: tuple[int, ...], tiny: TinyModel) -> np.ndarray[Any, Any]:
    random = np.random.default_rng([tiny.seed, *name.encode()])
    norm = "norm" in name and name.endswith("weight")
    spread = 0.1 if norm or name.endswith("bias") else 0.25
    centre = 0.0 if not norm or tiny.architecture.startswith("Gemma") else 1.0
    values = (centre + spread * random.standard_normal(shape)).astype(np.float16).astype(np.float32)
    if tiny.bf16:
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def _model_type(architecture: str) -> str:
    special = {"Gemma3ForCausalLM": "gemma3_text", "Gemma3ForConditionalGeneration": "gemma3"}
    return special.get(architecture, architecture.removesuffix("ForCausalLM").lower())


def _special_ids(tiny: TinyModel) -> dict[str, Any]:
    if tiny.tokenizer in ("spm", "pieces"):
        return {"bos_token_id": 1, "eos_token_id": 5, "pad_token_id": None}
    if tiny.tokenizer == "llama-bpe":
        return {"bos_token_id": 476, "eos_token_id": [477, 478, 479], "pad_token_id": None}
    return {"bos_token_id": None, "eos_token_id": 479, "pad_token_id": 477}


def _write_tokenizer(folder: Path, tiny: TinyModel) -> None:
    if tiny.tokenizer in ("spm", "pieces"):
        if tiny.tokenizer == "spm":
            (folder / "tokenizer.model").write_bytes(tokenizer_bytes(vocab=340))
        else:
            (folder / "tokenizer.json").write_text(pieces_json(vocab=340))
        names = ("<unk>", "<s>", "</s>", USER, ASSISTANT, END)
        settings: dict[str, Any] = {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "add_prefix_space": False,
            "legacy": False,
            "bos_token": "<s>",
            "eos_token": END,
            "unk_token": "<unk>",
            "chat_template": "{{ bos_token }}" + CHAT_TEMPLATE,
            "added_tokens_decoder": {
                str(token): {"content": content, "special": True} for token, content in enumerate(names)
            },
        }
    else:
        markers = LLAMA3_MARKERS if tiny.tokenizer == "llama-bpe" else MARKERS
        bos = markers[0] if tiny.tokenizer == "llama-bpe" else ""
        text = bpe_json(tiny.tokenizer, special=markers, bos=bos)
        (folder / "tokenizer.json").write_text(text)
        settings = {
            "tokenizer_class": "GPT2Tokenizer"
            if tiny.tokenizer in ("gpt-2", "gpt-4o", "dbrx")
            else "PreTrainedTokenizerFast",
            "bos_token": bos or None,
            "eos_token": markers[2],
            "pad_token": markers[0] if not bos else None,
            "chat_template": ("{{ bos_token }}" + CHATML) if bos else CHATML,
        }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
