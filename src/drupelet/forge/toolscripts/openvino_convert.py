"""Makes an OpenVINO GenAI folder (IR) with optimum-intel: `openvino_convert.py FOLDER OUT QUANTIZATION`."""

from __future__ import annotations

import sys
from pathlib import Path

WEIGHTS = {
    "int4": ["--weight-format", "int4", "--sym", "--group-size", "32", "--ratio", "1.0"],
    "int8": ["--weight-format", "int8"],
    "f16": ["--weight-format", "fp16"],
}
LEFT_OUT = ("openvino_config.json",)
"""Says how it was made, with a path of this machine; only optimum reads it."""


def main(folder: str, out: str, quantization: str) -> None:
    """Export a model that keeps its own cache, with tokenizer and detokenizer as graphs beside it."""
    # A text model needs no torchvision, which optimum-intel installs and which loads only beside its very own torch.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    from optimum.commands.optimum_cli import main as optimum

    task = ["--task", "text-generation-with-past", "--library", "transformers"]
    sys.argv = ["optimum-cli", "export", "openvino", "-m", folder, *task, *WEIGHTS[quantization], out]
    optimum()
    for name in LEFT_OUT:
        (Path(out) / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
