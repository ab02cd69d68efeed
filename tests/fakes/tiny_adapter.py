"""A small LoRA adapter in PEFT's layout, for the tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.fakes.tiny_checkpoint import TinyLlama

Tensors = dict[str, NDArray[np.float32]]


def adapter_tensors(shape: TinyLlama, *, rank: int = 4, seed: int = 7, spread: float = 0.1) -> Tensors:
    """Return A and B for the query and value matrices of every layer, under PEFT's names."""
    random = np.random.default_rng(seed)
    found: Tensors = {}
    for layer in range(shape.layers):
        for module, rows in (("q_proj", shape.heads), ("v_proj", shape.kv_heads)):
            at = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            down = random.standard_normal((rank, shape.hidden)) * spread
            up = random.standard_normal((rows * shape.head_dim, rank)) * spread
            found[f"{at}.lora_A.weight"] = down.astype(np.float32)
            found[f"{at}.lora_B.weight"] = up.astype(np.float32)
    return found


def write_tiny_adapter(
    folder: Path, *, shape: TinyLlama | None = None, tensors: Tensors | None = None, **changes: Any
) -> Path:
    """Write an adapter to `folder` and return it; `changes` replace fields of its config."""
    shape = shape if shape is not None else TinyLlama()
    folder.mkdir(parents=True, exist_ok=True)
    weights = tensors if tensors is not None else adapter_tensors(shape)
    save_file(dict(weights), folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "somebody/tiny",
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder
