"""Will it fit? Predicted memory against a child that is given exactly that, and against one that is given less.

    python benchmarks/bench_memory.py

Each model (random weights) runs in a memory cgroup of the predicted size and answers a prompt that nearly fills its
context; then in one of 0.8, 0.6 and 0.4 times that. Needs root and a memory cgroup. Machine: this one, not a board.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.cgroups import available, memory_cgroup  # noqa: E402
from tests.fakes.tiny_checkpoint import TinyLlama, config_of, tiny_tensors, write_tiny_checkpoint  # noqa: E402

from drupelet.core.names import variant_name  # noqa: E402
from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.engine.spec import EngineError  # noqa: E402
from drupelet.forge.checkpoint import open_checkpoint  # noqa: E402
from drupelet.forge.convert import Wanted, convert  # noqa: E402
from drupelet.forge.plan.predict import predict_memory  # noqa: E402
from drupelet.forge.runners import RUNNERS  # noqa: E402
from drupelet.forge.runners.port import RunSpec  # noqa: E402

SHAPES = {
    "2M, 256 tokens": (TinyLlama(hidden=256, ffn=512, layers=3, heads=8, kv_heads=4, context=4096), 256),
    "2M, 4096 tokens": (TinyLlama(hidden=256, ffn=512, layers=4, heads=8, kv_heads=4, context=4096), 4096),
    "35M, 128,000 words": (
        TinyLlama(hidden=256, ffn=512, layers=4, heads=8, kv_heads=4, vocab=128_000, context=4096),
        512,
    ),
    "155M, 2048 tokens": (
        TinyLlama(hidden=1024, ffn=4096, layers=8, heads=16, kv_heads=8, vocab=32_000, context=4096),
        2048,
    ),
}
TIGHT = (1.0, 0.8, 0.6, 0.4)
OVER_MIB_MAX = 64
"""A prediction far above the peak would send people to a larger board for nothing. Part of it is the inference library,
which is charged to whoever loaded it first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a child: whether it answered, its cgroup's peak, how often the limit was reached."""

    answered: bool
    peak_bytes: int
    hit: int
    words: str


def made(folder: Path, shape: TinyLlama) -> Path:
    """Return a Q8_0 of random weights."""
    tensors = {name: value.astype(np.float16) for name, value in tiny_tensors(shape).items()}
    plain = dataclasses.replace(shape, vocab=352)  # the tokenizer stays small, its rows are padded
    source = write_tiny_checkpoint(folder / "checkpoint", shape=plain, config=config_of(shape), tensors=dict(tensors))
    wanted = [Wanted(name=variant_name("q8-0"), quantization="q8_0")]
    return convert(open_checkpoint(source), wanted, folder / "out", model_name="m", disk=PosixDisk())[0].artifact.path


def forget(path: Path) -> None:
    """Drop a file from the page cache, where it would be charged to whoever wrote it and not to who reads it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_within(limit_bytes: int, model: Path, context_tokens: int, runtime_folder: Path) -> Outcome:
    """Run a child in a cgroup of `limit_bytes` and ask it a prompt that nearly fills its context."""
    forget(model)
    spec = RunSpec(model=model, alias="m", context_tokens=context_tokens)
    with memory_cgroup(limit_bytes) as group:
        try:
            with RUNNERS["gguf"].start(spec, runtime_folder=runtime_folder) as session:
                prompt = "a milk " * (context_tokens // 5)
                answer = session.ask([{"role": "user", "content": prompt}], tokens_max=8)
                words = f"{answer.prompt_tokens} tokens read, {answer.tokens} written"
                answered = answer.tokens > 0
        except EngineError as error:
            answered, words = False, error.what
        return Outcome(answered=answered, peak_bytes=group.peak_bytes(), hit=group.hit(), words=words)


def main() -> None:
    """Measure and print."""
    if not available():
        print("  skipped: needs root and a memory cgroup")
        return
    failed = False
    for name, (shape, context) in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="dmem") as folder:
            model = made(Path(folder), shape)
            checkpoint = open_checkpoint(Path(folder) / "checkpoint")
            predicted = predict_memory(
                model.stat().st_size, checkpoint.shape, feed_forward=shape.ffn, context_tokens=context
            ).total
            for share in TIGHT:
                found = run_within(int(predicted * share), model, context, Path(folder) / "r")
                verdict = "answers" if found.answered else f"fails: {found.words[:60]}"
                said = f"{share:.1f} x {predicted / 2**20:4.0f} MiB predicted: peak {found.peak_bytes / 2**20:4.0f} MiB"
                print(f"  {name:<20} {said}, limit reached {found.hit:>5} times, {verdict}", flush=True)
                if share == 1.0:
                    failed |= not found.answered or found.hit > 0 or predicted - found.peak_bytes > OVER_MIB_MAX << 20
    sys.exit(failed)


if __name__ == "__main__":
    main()
