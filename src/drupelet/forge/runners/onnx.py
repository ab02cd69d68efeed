"""ONNX Runtime GenAI folders, run by onnxruntime-genai in its tool environment."""

from __future__ import annotations

from drupelet.forge.runners.tooled import ToolRunner
from drupelet.forge.toolchain.environments import ONNX

RUNNER = ToolRunner(file_format="onnx", venv=ONNX, script="onnx_run.py", runtime="onnxruntime-genai")
