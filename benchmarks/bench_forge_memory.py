"""Converting a billion weights with what is embedded: most resident memory, and time, for each quantization.

    python benchmarks/bench_forge_memory.py           needs no toolchain

A checkpoint is streamed tensor by tensor, so that memory follows the largest tensor and not the model. The largest here
is a matrix of 8,192 by 2,048 in f16, 32 MiB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.formats.gguf import GgufFormat
from forge_1b import measure, write_checkpoint

TENSORS, MORE_MIB = 4, 300 * 10**6 / 2**20
"""The target: so many times the largest tensor, and 300 MB for the interpreter, its libraries and the vocabulary."""
SPEED = Path(__file__).with_name("bench_forge_speed.py")


def main() -> None:
    """Measure and print."""
    missed = False
    with tempfile.TemporaryDirectory(prefix="dfb-1b-") as name:
        folder = write_checkpoint(Path(name) / "checkpoint")
        checkpoint = open_checkpoint(folder)
        largest = max(tensor.size_bytes for tensor in checkpoint.tensors.values()) / 2**20
        target = TENSORS * largest + MORE_MIB
        print(f"  {checkpoint.parameters / 1e9:.2f} billion weights, the largest tensor {largest:.0f} MiB")
        for quantization in GgufFormat.quantizations:
            out = Path(name) / "out"
            took = measure([sys.executable, SPEED, "embedded", folder, out, quantization])
            (out / f"{quantization}.gguf").unlink()
            over = took.peak_mib > target
            missed = missed or over
            what = (
                f"embedded, {quantization}: {took.seconds:.1f} s ({took.processor_s:.1f} s of processor), peak memory"
            )
            print(
                f"  {what:<66} {took.peak_mib:6.0f} MiB  target <= {target:.0f} {'MISSED' if over else ''}", flush=True
            )
    sys.exit(missed)


if __name__ == "__main__":
    main()
