"""The forge and the engine: conversion against a plain copy, its memory, the kiosk's child and its distance from f16.

    python benchmarks/bench_forge.py

Conversion is compared in the same run with reading, hashing and writing as many bytes. Speeds are this machine's and no
device's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.tiny_checkpoint import TinyLlama, tiny_tensors, write_tiny_checkpoint  # noqa: E402

from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.engine.child import Child  # noqa: E402
from drupelet.engine.spec import ChildSpec  # noqa: E402
from drupelet.forge.checkpoint import open_checkpoint  # noqa: E402
from drupelet.forge.convert import convert  # noqa: E402
from drupelet.forge.evaluation import Bench, evaluate  # noqa: E402
from drupelet.forge.recipe import load_recipe  # noqa: E402

COPY_RATIO_MAX = 8.0
"""Q4_0 finds each block's scale and rounds; a copy does nothing."""
CONVERT_MEMORY_MIB_MAX = 110.0
CHILD_RSS_MIB_MAX = 60.0
CHILD_START_MS_MAX = 1_000.0
KL_Q4_MAX = 0.01
STARTS = 7
KIOSK = ROOT / "models" / "kiosk"

_MEMORY = """
import json, sys, time
from pathlib import Path
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert

def peak_mib():  # not ru_maxrss: it remembers the process that forked this one
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024

checkpoint = open_checkpoint(Path(sys.argv[1]))
before, begun = peak_mib(), time.monotonic()
convert(checkpoint, [Wanted(name="q4_0", quantization="q4_0")], Path(sys.argv[2]), model_name="x", disk=PosixDisk())
print(json.dumps([time.monotonic() - begun, peak_mib() - before]))
"""


def conversion(folder: Path) -> tuple[float, float, float]:
    """Return seconds to convert a 60M-weight checkpoint to Q4_0, seconds to copy it, and MiB of memory it took."""
    shape = TinyLlama(hidden=1024, ffn=2816, layers=5, heads=16, kv_heads=4, context=512)
    tensors = {name: value.astype(np.float16) for name, value in tiny_tensors(shape).items()}
    source = write_tiny_checkpoint(folder / "checkpoint", shape=shape, tensors=dict(tensors))
    begun = time.monotonic()
    data = (source / "model.safetensors").read_bytes()
    hashlib.sha256(data).hexdigest()
    (folder / "copy").write_bytes(data)
    copied_s = time.monotonic() - begun
    command = [sys.executable, "-c", _MEMORY, str(source), str(folder / "out")]
    converted_s, mib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return converted_s, copied_s, mib


async def starts(model: Path, runtime_folder: Path) -> tuple[float, float]:
    """Return the median time to a ready child in milliseconds, and its resident MiB."""
    times, rss = [], 0
    for _ in range(STARTS):
        child = await Child.start(
            ChildSpec(model=model, alias="kiosk", context_tokens=256), runtime_folder=runtime_folder
        )
        times.append(child.start_ms)
        rss = max(rss, child.rss_bytes())
        await child.stop()
    return statistics.median(times), rss / 2**20


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="dfb") as name:
        folder = Path(name)
        converted_s, copied_s, mib = conversion(folder)
        recipe, _ = load_recipe(KIOSK / "recipe.toml")
        checkpoint = open_checkpoint(KIOSK / "1.1")
        wanted = [variant.wanted for variant in recipe.variants]
        made = convert(checkpoint, wanted, folder / "kiosk", model_name="kiosk", disk=PosixDisk())
        reference = next(one.artifact for one in made if one.wanted.quantization == "f16")
        bench = Bench(disk=PosixDisk(), cache=folder / "cache", runtime_folder=folder / "r")
        report = evaluate(recipe, made, reference=reference, checkpoint=checkpoint, bench=bench)
        start_ms, rss_mib = asyncio.run(starts(made[0].artifact.path, folder / "r"))
    q4 = report.variant("q4_0")
    kl = q4.quality.kl_mean if q4 is not None and q4.quality is not None else float("inf")
    rows = [
        (f"Q4_0 conversion ({converted_s:.1f} s) against a hashed copy", converted_s / copied_s, "x", COPY_RATIO_MAX),
        ("memory of a conversion of 120 MB", mib, "MiB", CONVERT_MEMORY_MIB_MAX),
        ("child of the kiosk model, spawn to ready", start_ms, "ms", CHILD_START_MS_MAX),
        ("child of the kiosk model, resident", rss_mib, "MiB", CHILD_RSS_MIB_MAX),
        ("kiosk Q4_0, mean KL to f16", kl, "nats", KL_Q4_MAX),
    ]
    for what, value, unit, target in rows:
        print(f"  {what:<58} {value:9.4g} {unit:<5} target <= {target:g} {'' if value <= target else 'MISSED'}")
    for one in report.variants:
        quality = f"KL {one.quality.kl_mean:.5f}, top-1 {one.quality.top1_agreement:.1%}" if one.quality else ""
        print(f"  {one.name}: {one.size_bytes / 2**20:.1f} MiB, {one.tokens_per_second:.0f} tokens/s, {quality}")
    sys.exit(any(value > target for _, value, _, target in rows))


if __name__ == "__main__":
    main()
