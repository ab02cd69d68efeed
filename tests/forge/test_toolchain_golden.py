"""The golden files are what the toolchain's own llama.cpp makes today. Under `make toolchain-test`."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest

from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.venvs import cache_folder
from tests.fakes.golden_gguf import GOLDEN

SCRIPT = Path(__file__).parents[2] / "scripts" / "golden_convert.py"
NAMES = ["llama3", "qwen3", "gemma3", "phi3-long"]


@pytest.mark.skipif(
    not os.environ.get("DRUPELET_TOOLCHAIN_TESTS"), reason="llama.cpp's own toolchain: run `make toolchain-test`"
)
def test_the_golden_files_are_todays(tmp_path: Path) -> None:
    tools = LlamaCpp().open(cache_folder())
    found = runpy.run_path(str(SCRIPT))["convert_all"](tools.source, tools.python, NAMES, tmp_path)
    for name in NAMES:
        assert found[name] == json.loads((GOLDEN / f"{name}.json").read_text())
