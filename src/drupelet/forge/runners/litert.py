"""LiteRT-LM files, run by litert-lm-api in its tool environment."""

from __future__ import annotations

from drupelet.forge.runners.tooled import ToolRunner
from drupelet.forge.toolchain.environments import LITERT

RUNNER = ToolRunner(
    file_format="litert", venv=LITERT, script="litert_run.py", runtime="litert-lm-api", single="model.litertlm"
)
