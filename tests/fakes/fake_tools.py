"""A tool environment that is this very Python, and scripts in it that behave well or badly."""

from __future__ import annotations

import sys
from pathlib import Path

from drupelet.forge.toolchain.venvs import ToolVenv

CONVERT = """
import os, sys, pathlib
folder, out, quantization = map(pathlib.Path, sys.argv[1:])
print("converting", sorted(os.environ))
{bad}
out.mkdir()
weights = (folder / "model.safetensors").read_bytes()[:64]
(out / "model.bin").write_bytes((folder / "config.json").read_bytes() + weights)
(out / "about.txt").write_text(str(quantization))
"""
RUN = """
import json, sys
{bad_start}
print(json.dumps({{"ready": {{}}}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    {bad_answer}
    print(json.dumps({{"answer": [1, 2, len(asked["with"].get("text", ""))]}}), flush=True)
"""


class FakeVenv(ToolVenv):
    """Always there."""

    def python(self, cache: Path) -> Path:
        """Return this Python."""
        del cache
        return Path(sys.executable)


def venv() -> FakeVenv:
    """Return the environment."""
    return FakeVenv(name="fake-tool", requirements=("fake-tool==1.0",))


def convert_script(folder: Path, bad: str = "") -> str:
    """Write a converter that does `bad` before it writes anything, and return its path."""
    return _written(folder / "convert.py", CONVERT.format(bad=bad))


def run_script(folder: Path, *, bad_start: str = "", bad_answer: str = "") -> str:
    """Write a runtime and return its path."""
    return _written(folder / "run.py", RUN.format(bad_start=bad_start, bad_answer=bad_answer or "pass"))


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
