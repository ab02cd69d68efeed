"""`make golden-convert`: what llama.cpp's converter and transformers make of the tests' tiny checkpoints, as files.

Needs the toolchain (`drupelet forge toolchain build llama.cpp`). Run it when a tiny checkpoint or the pinned version of
llama.cpp changes, and look at what changed with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.golden_gguf import GOLDEN, facts, lines  # noqa: E402
from tests.fakes.tiny_models import TINY_MODELS, TOKENS, write_tiny_model  # noqa: E402

from drupelet.forge.toolchain.llamacpp import LlamaCpp  # noqa: E402
from drupelet.forge.toolchain.venvs import cache_folder  # noqa: E402

CONVERTED_ONLY = ("gemma3-sees",)
"""Half a model: transformers loads it whole or not at all."""
KINDS = ("f32", "f16", "bf16", "q8_0")


def main() -> None:
    """Write `tests/golden/convert/<model>.json` and `<model>.npy`, of all models or of those named."""
    tools = LlamaCpp().open(cache_folder())
    # llama.cpp's converter needs `tokenizer.model` where a tokenizer.json was made from one.
    names = sys.argv[1:] or [name for name, tiny in TINY_MODELS.items() if tiny.tokenizer != "pieces"]
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drupelet-golden-") as scratch:
        found = convert_all(tools.source, tools.python, names, Path(scratch), logits=GOLDEN)
    for name, kinds in found.items():
        (GOLDEN / f"{name}.json").write_text(lines(kinds))
        print(name, ", ".join(kinds), flush=True)


def convert_all(
    source: Path, python: Path, names: list[str], scratch: Path, *, logits: Path | None = None
) -> dict[str, dict[str, object]]:
    """Return model -> kind -> facts of what llama.cpp's converter makes of it."""
    jobs = [
        {
            "folder": str(write_tiny_model(scratch / name, name)),
            "out": str(scratch / "out" / name),
            "logits": str(logits / f"{name}.npy") if logits is not None and name not in CONVERTED_ONLY else "",
            "tokens": TOKENS,
            "kinds": KINDS,
            "pre": TINY_MODELS[name].tokenizer,
        }
        for name in names
    ]
    (scratch / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("golden_reference.py")
    subprocess.run([python, script, source, scratch / "jobs.json"], check=True, cwd=scratch)
    return {name: {kind: facts(scratch / "out" / name / f"{kind}.gguf") for kind in KINDS} for name in names}


if __name__ == "__main__":
    main()
