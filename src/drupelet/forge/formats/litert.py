"""LiteRT-LM: one file with the graph, tokenizer, template and end tokens; the cache's length is fixed in the graph."""

from __future__ import annotations

from drupelet.forge.formats.tooled import ToolFormat
from drupelet.forge.toolchain.environments import LITERT

FORMAT = ToolFormat(
    name="litert",
    quantizations=("int8", "int4", "f32"),
    venv=LITERT,
    script="litert_convert.py",
    single="model.litertlm",
    parts=True,
)
