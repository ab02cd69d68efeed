"""Makes an ONNX Runtime GenAI folder with that package's model builder: `onnx_convert.py FOLDER OUT QUANTIZATION`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PRECISIONS = {"int4": "int4", "f32": "fp32"}
BLOCK = "32"
"""Weights that share a scale, as in GGUF's Q4_0; wider blocks are smaller and worse."""


def read_pieces_whole(out: Path) -> None:
    """Have the runtime split texts as SentencePiece does, where the tokenizer comes from there.

    transformers writes such a tokenizer as one that marks spaces and splits nowhere. The runtime does not know that
    form and splits texts as Llama 3 would, before digits for one. It does know Gemma's way of writing the same.
    """
    path, settings = out / "tokenizer.json", out / "tokenizer_config.json"
    tokenizer, config = json.loads(path.read_text()), json.loads(settings.read_text())
    marks = tokenizer.get("pre_tokenizer") or {}
    if marks.get("type") != "Metaspace" or marks.get("split") is not False:
        return
    steps = [{"type": "Replace", "pattern": {"String": " "}, "content": marks["replacement"]}]
    if marks["prepend_scheme"] != "never":
        steps.insert(0, {"type": "Prepend", "prepend": marks["replacement"]})
    before = [tokenizer["normalizer"]] if tokenizer.get("normalizer") else []
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [*before, *steps]}
    tokenizer["pre_tokenizer"] = None
    config["tokenizer_class"] = "GemmaTokenizer"
    path.write_text(json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n")
    settings.write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def main(folder: str, out: str, quantization: str) -> None:
    """Build for processors. What is written names neither folder."""
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu", "-p", PRECISIONS[quantization]]
    options = ["--extra_options", "hf_token=false", f"int4_block_size={BLOCK}"]
    subprocess.run([*builder, "-i", folder, "-o", out, "-c", str(Path(folder) / "cache"), *options], check=True)
    read_pieces_whole(Path(out))
    config = Path(out) / "genai_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
