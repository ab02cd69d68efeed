"""Runners of what the forge made, one file a format, registered by the format's name."""

from __future__ import annotations

from collections.abc import Mapping

from drupelet.forge.runners import litert, onnx, openvino
from drupelet.forge.runners.llamacpp import LlamaCppRunner
from drupelet.forge.runners.port import Runner

_ALL: tuple[Runner, ...] = (LlamaCppRunner(), LlamaCppRunner("gguf-lora"), onnx.RUNNER, litert.RUNNER, openvino.RUNNER)

RUNNERS: Mapping[str, Runner] = {runner.file_format: runner for runner in _ALL}
"""Format name, as the manifest writes it -> what runs it in the evaluation."""
