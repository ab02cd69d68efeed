"""OpenVINO IR for OpenVINO GenAI: graphs of model, tokenizer and detokenizer with their weights, as one bundle."""

from __future__ import annotations

from drupelet.forge.formats.tooled import ToolFormat
from drupelet.forge.toolchain.environments import OPENVINO

FORMAT = ToolFormat(name="openvino", quantizations=("int8", "int4", "f16"), venv=OPENVINO, script="openvino_convert.py")
