"""What the evaluation catches: planted faults that must be refused, honest variants that must pass.

    python benchmarks/bench_forge_faults.py [WORD]

With a word, only those whose name contains it. Every file is made from the kiosk model by the surgeries in
`tests/fakes/faults.py`, and judged by the kiosk's own recipe and budgets.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.faults import FAULTS, HONEST  # noqa: E402
from tests.fakes.gguf_surgery import changed  # noqa: E402

from drupelet.core.names import variant_name  # noqa: E402
from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.forge.checkpoint import Checkpoint, open_checkpoint  # noqa: E402
from drupelet.forge.convert import Converted, Wanted, convert  # noqa: E402
from drupelet.forge.evaluation import Bench, evaluate  # noqa: E402
from drupelet.forge.formats.port import Artifact  # noqa: E402
from drupelet.forge.recipe import Recipe, load_recipe  # noqa: E402
from drupelet.forge.report import Report  # noqa: E402

FAULTS_MIN, HONEST_MIN = 15, 20
KIOSK = ROOT / "models" / "kiosk"
_SHOWN = 110


class Suite:
    """The kiosk's two versions, converted soundly, and a place to work."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder, self._recipe = folder, recipe
        self._sound: dict[str, tuple[Checkpoint, dict[str, Artifact]]] = {}

    def sound(self, version: str) -> tuple[Checkpoint, dict[str, Artifact]]:
        """Return the checkpoint of a version and its sound files by quantization."""
        if version not in self._sound:
            checkpoint = open_checkpoint(KIOSK / version)
            wanted = [Wanted(name=variant_name(one), quantization=one) for one in ("f16", "q8_0", "q4_0")]
            made = convert(checkpoint, wanted, self._folder / version, model_name="kiosk", disk=PosixDisk())
            self._sound[version] = checkpoint, {str(one.wanted.name): one.artifact for one in made}
        return self._sound[version]

    def fault(self, name: str) -> Report:
        """Return the report on a planted fault."""
        fault = FAULTS[name]
        checkpoint, files = self.sound("1.2")
        broken = changed(files[fault.quantization].path, self._folder / name / "variant.gguf", fault.change)
        reference = files["f16"]
        if fault.everywhere:
            reference = changed(files["f16"].path, self._folder / name / "f16.gguf", fault.change)
        return self._judge(checkpoint, reference, broken, budget=fault.quantization)

    def honest(self, name: str) -> Report:
        """Return the report on an honest variant."""
        one = HONEST[name]
        checkpoint, files = self.sound(one.version)
        out = self._folder / name.replace(" ", "-") / "variant.gguf"
        variant = changed(files["f16"].path, out, one.change)
        return self._judge(checkpoint, files["f16"], variant, budget=one.budget, threads=one.threads)

    def _judge(
        self, checkpoint: Checkpoint, reference: Artifact, variant: Artifact, *, budget: str, threads: int = 1
    ) -> Report:
        wanted = next(one for one in self._recipe.variants if one.name == budget)
        plan = msgspec.structs.replace(self._recipe.evaluation, threads=threads)
        recipe = msgspec.structs.replace(self._recipe, variants=(wanted,), evaluation=plan)
        made = Converted(wanted=wanted.wanted, artifact=variant, duration_ms=0.0)
        bench = Bench(disk=PosixDisk(), cache=self._folder / "cache", runtime_folder=self._folder / "r")
        return evaluate(recipe, [made], reference=reference, checkpoint=checkpoint, bench=bench)


def main() -> None:
    """Judge all, print a row each, fail if a fault passes or an honest variant does not."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    recipe, _ = load_recipe(KIOSK / "recipe.toml")
    faults, honest = [name for name in FAULTS if word in name], [name for name in HONEST if word in name]
    missed, refused, begun = [], [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dfl") as folder:
        suite = Suite(Path(folder), recipe)
        print("| planted fault | caught by |\n| --- | --- |")
        for name in faults:
            report = suite.fault(name)
            first = report.findings[0].split(": ", 1)[1] if report.findings else "**nothing**"
            more = f" (and {len(report.findings) - 1} more)" if len(report.findings) > 1 else ""
            print(f"| {FAULTS[name].words} | {first[:_SHOWN]}{more} |", flush=True)
            missed += [name] if report.passed else []
        print("\n| honest variant | KL mean | top-1 | verdict |\n| --- | --- | --- | --- |")
        for name in honest:
            report = suite.honest(name)
            quality = report.variants[0].quality
            numbers = f"{quality.kl_mean:.5f} | {quality.top1_agreement:.1%}" if quality else " | "
            said = "passes" if report.passed else f"**refused**: {report.findings[0][:_SHOWN]}"
            print(f"| {name} | {numbers} | {said} |", flush=True)
            refused += [] if report.passed else [name]
    caught, passing = f"{len(faults) - len(missed)} of {len(faults)}", f"{len(honest) - len(refused)} of {len(honest)}"
    print(f"\n  {caught} faults caught, {passing} honest variants pass; {time.monotonic() - begun:.0f} s")
    print(f"  missed: {', '.join(missed) or 'none'}; wrongly refused: {', '.join(refused) or 'none'}")
    short = not word and (len(faults) < FAULTS_MIN or len(honest) < HONEST_MIN)
    sys.exit(bool(missed or refused or short))


if __name__ == "__main__":
    main()
