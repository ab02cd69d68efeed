"""ONNX Runtime GenAI: a folder with the graph, its weights in blocks of 4 bits, tokenizer, template, in one bundle."""

from __future__ import annotations

from drupelet.forge.formats.tooled import ToolFormat
from drupelet.forge.toolchain.environments import ONNX

FORMAT = ToolFormat(name="onnx", quantizations=("int4", "f32"), venv=ONNX, script="onnx_convert.py")
