"""Runs in the toolchain's Python: llama.cpp's own converter, and Hugging Face's own classes, on tiny checkpoints.

    python scripts/golden_reference.py LLAMA_CPP_SOURCE JOBS.json

A job is `{"folder", "out", "logits", "tokens", "kinds", "pre"}`: convert `folder` to `out/<kind>.gguf`, and write the
logits that transformers computes for `tokens` to `logits`. llama.cpp's converter knows the pre-tokenizers of published
vocabularies only, by a digest; the one of a vocabulary trained for a test is given to it by name.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Do all jobs."""
    source, jobs = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion.base import TextModel

    for job in jobs:
        TextModel.get_vocab_base_pre = lambda _self, _tokenizer, pre=job["pre"]: pre
        for kind in job["kinds"]:
            out = Path(job["out"]) / f"{kind}.gguf"
            out.parent.mkdir(parents=True, exist_ok=True)
            sys.argv = ["convert", "--outtype", kind, "--outfile", str(out), job["folder"]]
            runpy.run_path(str(source / "convert_hf_to_gguf.py"), run_name="__main__")
        if job["logits"]:
            compute(Path(job["folder"]), job["tokens"], Path(job["logits"]))


def compute(folder: Path, tokens: list[int], out: Path) -> None:
    """Write float16 logits (positions, vocabulary); every weight must be known by its name, and none be missing."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    with torch.no_grad():
        found = model.eval()(torch.tensor([tokens])).logits[0]
    np.save(out, found.numpy().astype(np.float16))


if __name__ == "__main__":
    main()
