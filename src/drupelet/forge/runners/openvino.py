"""OpenVINO GenAI folders, run by openvino-genai in its tool environment."""

from __future__ import annotations

from drupelet.forge.runners.tooled import ToolRunner
from drupelet.forge.toolchain.environments import OPENVINO

RUNNER = ToolRunner(file_format="openvino", venv=OPENVINO, script="openvino_run.py", runtime="openvino-genai")
