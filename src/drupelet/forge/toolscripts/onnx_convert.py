"""Makes an ONNX Runtime GenAI folder with that package's model builder: `onnx_convert.py FOLDER OUT QUANTIZATION`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PRECISIONS = {"int4": "int4", "f32": "fp32"}
BLOCK = "32"
"""Weights that share a scale, as in GGUF's Q4_0; wider blocks are smaller and worse."""


def main(folder: str, out: str, quantization: str) -> None:
    """Build for processors. What is written names neither folder."""
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu", "-p", PRECISIONS[quantization]]
    options = ["--extra_options", "hf_token=false", f"int4_block_size={BLOCK}"]
    subprocess.run([*builder, "-i", folder, "-o", out, "-c", str(Path(folder) / "cache"), *options], check=True)
    config = Path(out) / "genai_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
