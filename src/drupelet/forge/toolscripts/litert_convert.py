"""Makes a LiteRT-LM file with litert-torch: `litert_convert.py FOLDER OUT QUANTIZATION`.

Two things of that package are set right on the way. It imports `tensorflow` for one generated file of the schema, which
`ai-edge-litert` carries as well. And its bundle carries a random number and the time, so that no two are alike: here
they are what the checkpoint's own bytes give.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.machinery
import sys
import types
import uuid
from pathlib import Path
from typing import Any

RECIPES = {"int8": "dynamic_wi8_afp32", "int4": "dynamic_wi4b32_afp32", "f32": "none"}
PREFILL_TOKENS = (1, 8, 32, 128)
"""Prompts are read in pieces of these lengths."""
CONTEXT_MAX = 4096
"""The cache is a fixed part of the file's graph, so a model's whole context may be more than a board's memory."""
EPOCH = datetime.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=datetime.UTC)
"""With a microsecond, so that it takes the room that a time takes."""


def stand_in_for_tensorflow() -> None:
    """Register modules by the names that litert-torch imports."""
    from ai_edge_litert import schema_py_generated

    name = "tensorflow"
    for part in ("", ".lite", ".python"):
        name += part
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
    sys.modules[f"{name}.schema_py_generated"] = schema_py_generated
    sys.modules[name].schema_py_generated = schema_py_generated  # type: ignore[attr-defined]


def same_every_time(folder: str) -> None:
    """Give the bundle an identity made of the checkpoint, and a time that never changes."""
    from litert_lm_builder import litertlm_builder

    hashing = hashlib.sha256()
    for path in sorted(Path(folder).glob("*")):
        if path.is_file():
            with path.open("rb") as file:
                hashing.update(hashlib.file_digest(file, "sha256").digest())
    identity = uuid.UUID(bytes=hashing.digest()[:16], version=4)
    clock = types.SimpleNamespace(now=lambda _zone: EPOCH)
    litertlm_builder.uuid = types.SimpleNamespace(uuid4=lambda: identity)
    litertlm_builder.datetime = types.SimpleNamespace(datetime=clock, timezone=datetime.timezone)


def main(folder: str, out: str, quantization: str) -> None:
    """Export for processors, with the tokenizer and the chat template inside."""
    stand_in_for_tensorflow()
    same_every_time(folder)
    from litert_torch.generative.export_hf import export
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(folder)
    export.export(
        folder,
        out,
        prefill_lengths=list(PREFILL_TOKENS),
        cache_length=min(int(config.max_position_embeddings), CONTEXT_MAX),
        quantization_recipe=RECIPES[quantization],
        externalize_embedder=False,
        use_jinja_template=True,
        bundle_litert_lm=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
