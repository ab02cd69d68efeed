"""Conversion, quantization and evaluation of a billion weights: Drupelet against llama.cpp's own tools, in one run.

    python benchmarks/bench_forge_speed.py            needs `drupelet forge toolchain build`

By hand is what a person would type: `convert_hf_to_gguf.py`, `llama-quantize`, and `llama-perplexity` twice for the
divergence from f16, all from the same build as Drupelet's toolchain. Each side is measured with all its children, one
after the other. Where other work keeps the machine busy, the clock measures that work: processor time is compared then,
and the line says so.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from drupelet.core.names import Digest, ReleaseId, Version, family
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.evaluation import Bench
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.toolchain import ToolchainGguf
from drupelet.forge.pipeline import Pipeline
from drupelet.forge.recipe import parse_recipe
from drupelet.forge.toolchain.llamacpp import Installed, LlamaCpp
from drupelet.forge.toolchain.tools import Tools
from drupelet.forge.toolchain.venvs import ToolMissing, cache_folder
from forge_1b import BILLION, Measured, busy, measure, processor_s, words, write_checkpoint

TOOLCHAIN_TIME_MAX = 1.1
TOOLCHAIN_MEMORY_MAX = 1.0
EMBEDDED_TIME_MAX = 3.0
CONTEXT, PIECES = 256, 2
THREADS = os.cpu_count() or 1
RECIPE = f"""
format = "drupelet.recipe/1"
family = "billion"
model = "billion"
context_tokens = {CONTEXT}
converter = "toolchain"
[quality]
kl_mean_max = 1000.0
top1_agreement_min = 0.0
[[variants]]
name = "q4_k_m"
quantization = "q4_k_m"
[[canonical_prompts]]
id = "one"
prompt = "ba"
tokens_max = 1
expect = [{{ kind = "tokens_max", value = "1" }}]
[evaluation]
threads = {THREADS}
texts = [{", ".join(f'"{words(8 * CONTEXT, seed=n)[: 7 * CONTEXT]}"' for n in range(PIECES))}]
"""
EXTRA = ("computing layer", "comparing the weights")
"""What llama.cpp's tools have nothing like: the checkpoint computed a second time, every block compared."""
HERE = Path(__file__)


class Phases:
    """How long Drupelet's line spends on what: `made` before the evaluation, then what llama.cpp's tools do not do."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = {}
        self._what, self._since, self._used = "made", time.monotonic(), processor_s()

    def doing(self, what: str) -> None:
        """Something else begins: charge what was done so far."""
        seconds, used = self.took.get(self._what, [0.0, 0.0])
        now, now_used = time.monotonic(), processor_s()
        self.took[self._what] = [seconds + now - self._since, used + now_used - self._used]
        extra = what.startswith(EXTRA)
        self._what, self._since, self._used = "checks" if extra else "judged", now, now_used


def line(checkpoint: Path, out: Path) -> None:
    """Run Drupelet's whole line with the toolchain: in a process of its own, so that it can be measured."""
    recipe = parse_recipe(RECIPE.encode())
    tools = Tools(installed=LlamaCpp().open(cache_folder()), logs=out / "logs", threads=THREADS)

    def now_ms() -> int:
        return time.time_ns() // 1_000_000

    phases = Phases()
    with tempfile.TemporaryDirectory(prefix="dfb") as runtime:
        Pipeline(
            release=ReleaseId(family("billion"), Version.parse("1.0")),
            recipe=recipe,
            recipe_digest=Digest.of_hex("ab" * 32),
            checkpoint=open_checkpoint(checkpoint),
            folder=out,
            bench=Bench(disk=PosixDisk(), cache=out / "cache", runtime_folder=Path(runtime), progress=phases.doing),
            now_ms=now_ms,
            formats={**FORMATS, "gguf": ToolchainGguf(tools=tools, work=out / "cache", now_ms=now_ms)},
        ).measure()
    phases.doing("")
    print(json.dumps(phases.took))


def embedded(checkpoint: Path, out: Path, quantization: str) -> None:
    """Convert with what is embedded, in a process of its own."""
    wanted = [Wanted(name=quantization, quantization=quantization)]  # type: ignore[arg-type]
    convert(open_checkpoint(checkpoint), wanted, out, model_name="billion", disk=PosixDisk())


class Tasks:
    """The two sides of each comparison, on one checkpoint."""

    def __init__(self, folder: Path, installed: Installed) -> None:
        self._folder, self._tools = folder, installed
        self._checkpoint = write_checkpoint(folder / "checkpoint")

    def by_hand_convert(self) -> Measured:
        """llama.cpp's converter, to f16."""
        script = self._tools.source / "convert_hf_to_gguf.py"
        return measure([self._tools.python, script, self._checkpoint, "--outfile", self._f16, "--outtype", "f16"])

    def by_hand_quantize(self, quantization: str) -> Measured:
        """llama.cpp's quantizer, from that f16."""
        out = self._folder / f"hand-{quantization}.gguf"
        return measure([self._tools.program("llama-quantize"), self._f16, out, quantization.upper(), str(THREADS)])

    def by_hand_evaluate(self, quantization: str) -> Measured:
        """The divergence from f16 by llama.cpp's perplexity tool: a pass of each model over the same amount of text."""
        text, base = self._folder / "text.txt", self._folder / "base.kld"
        text.write_text(words(4 * CONTEXT * PIECES))
        common = ["-c", str(CONTEXT), "-b", str(CONTEXT), "--chunks", str(PIECES), "-t", str(THREADS)]
        perplexity = self._tools.program("llama-perplexity")
        made = self._folder / f"hand-{quantization}.gguf"
        first = measure([perplexity, "-m", self._f16, "-f", text, *common, "--kl-divergence-base", base])
        return first.then(
            measure([perplexity, "-m", made, "-f", text, *common, "--kl-divergence-base", base, "--kl-divergence"])
        )

    def drupelet_line(self) -> Measured:
        """Convert, quantize to Q4_K_M and evaluate with Drupelet and its toolchain."""
        return measure([sys.executable, HERE, "line", self._checkpoint, self._folder / "out"])

    def drupelet_embedded(self, quantization: str) -> Measured:
        """Convert and quantize with what is embedded."""
        return measure([sys.executable, HERE, "embedded", self._checkpoint, self._folder / "embedded", quantization])

    @property
    def _f16(self) -> Path:
        return self._folder / "hand-f16.gguf"


def show(what: str, ratio: float, target: float) -> bool:
    """Print a ratio beside its target; return whether it was missed."""
    missed = ratio > target
    print(f"  {what:<66} {ratio:6.2f} x  target <= {target:g} {'MISSED' if missed else ''}", flush=True)
    return missed


def against(what: str, ours: Measured, theirs: Measured, target: float, *, by_clock: bool) -> bool:
    """Print how much longer Drupelet takes; return whether that is too long."""
    if by_clock:
        return show(what, ours.seconds / theirs.seconds, target)
    return show(f"{what} (processor time: a busy machine)", ours.processor_s / theirs.processor_s, target)


def said(what: str, took: Measured) -> Measured:
    """Print what one side took."""
    print(
        f"    {what:<44} {took.seconds:7.1f} s, {took.processor_s:7.1f} s of processor, {took.peak_mib:6.0f} MiB",
        flush=True,
    )
    return took


def main() -> None:
    """Measure and print."""
    try:
        installed = LlamaCpp().open(cache_folder())
    except ToolMissing as error:
        raise SystemExit(f"  skipped: {error.line()}") from error
    print(f"  {THREADS} processors, load {os.getloadavg()[0]:.1f}; {BILLION.layers} layers of {BILLION.hidden}")
    missed, calm = [], not busy()
    with tempfile.TemporaryDirectory(prefix="dfb-1b-") as name:
        tasks = Tasks(Path(name), installed)
        converted = said("by hand: convert to f16", tasks.by_hand_convert())
        quantized = said("by hand: quantize to Q4_K_M", tasks.by_hand_quantize("q4_k_m"))
        judged = said("by hand: divergence from f16", tasks.by_hand_evaluate("q4_k_m"))
        ours = said("drupelet with the toolchain: all of it", tasks.drupelet_line())
        theirs = converted.then(quantized).then(judged)
        phases = {name: Measured(*took, 0.0) for name, took in json.loads(ours.output.splitlines()[-1]).items()}
        for what, own, by_hand in (
            ("converting and quantizing", phases["made"], converted.then(quantized)),
            ("divergence from f16", phases["judged"], judged),
            ("the whole line, with checks that llama.cpp's tools lack", ours, theirs),
        ):
            missed.append(against(what, said(f"drupelet: {what}", own), by_hand, TOOLCHAIN_TIME_MAX, by_clock=calm))
        missed.append(show("its memory", ours.peak_mib / theirs.peak_mib, TOOLCHAIN_MEMORY_MAX))
        for quantization in ("q8_0", "q4_0"):
            by_hand = converted.then(said(f"by hand: quantize to {quantization}", tasks.by_hand_quantize(quantization)))
            own = said(f"drupelet embedded: {quantization}", tasks.drupelet_embedded(quantization))
            what = f"time of {quantization}, embedded in numpy"
            missed.append(against(what, own, by_hand, EMBEDDED_TIME_MAX, by_clock=calm))
        print(f"  load at the end {os.getloadavg()[0]:.1f}")
    sys.exit(any(missed))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["line", checkpoint, out]:
            line(Path(checkpoint), Path(out))
        case ["embedded", checkpoint, out, quantization]:
            embedded(Path(checkpoint), Path(out), quantization)
        case _:
            main()
