"""What the evaluation costs as variants are added: the reference once, then the same for each of them.

python benchmarks/bench_forge_evaluation.py
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Converted, convert
from drupelet.forge.evaluation import Bench, evaluate
from drupelet.forge.recipe import Recipe, load_recipe
from forge_1b import busy, processor_s

GROWTH_MAX = 1.25
"""What eight variants cost, beyond the reference, against eight times what one costs."""
CACHED_MAX = 1.0
"""What an evaluation with the reference's answers and logits in the cache costs, against one without."""
KIOSK = Path(__file__).resolve().parents[1] / "models" / "kiosk"
COUNTS = (1, 2, 4, 8)


def main() -> None:
    """Measure and print."""
    # Where other work keeps the machine busy the clock measures that work.
    now = processor_s if busy() else time.monotonic
    print(f"  load {os.getloadavg()[0]:.1f}: {'processor' if now is processor_s else 'clock'} seconds")
    with tempfile.TemporaryDirectory(prefix="dfb-e-") as name:
        folder = Path(name)
        recipe, _ = load_recipe(KIOSK / "recipe.toml")
        checkpoint = open_checkpoint(KIOSK / "1.1")
        wanted = [variant.wanted for variant in recipe.variants]
        made = convert(checkpoint, wanted, folder / "kiosk", model_name="kiosk", disk=PosixDisk())
        reference = next(one for one in made if one.wanted.quantization == "f16")
        one = next(one for one in made if one.wanted.quantization == "q4_0")
        took: dict[str, float] = {}
        for count in COUNTS:
            asked, copies = _times(recipe, one, count)
            bench = Bench(disk=PosixDisk(), cache=folder / f"cache-{count}", runtime_folder=folder / "r")
            for state in ("fresh", "cached"):
                begun = now()
                evaluate(asked, copies, reference=reference.artifact, checkpoint=checkpoint, bench=bench)
                took[f"{count} {state}"] = now() - begun
            fresh, cached = took[f"{count} fresh"], took[f"{count} cached"]
            print(f"    {count} variants: {fresh:6.2f} s, {cached:6.2f} s with the reference in the cache", flush=True)
    most = COUNTS[-1]
    growth = took[f"{most} cached"] / (most * took["1 cached"])
    kept = sum(took[f"{count} cached"] for count in COUNTS) / sum(took[f"{count} fresh"] for count in COUNTS)
    missed = False
    for what, value, target in (
        (f"{most} variants against {most} times one, the reference cached", growth, GROWTH_MAX),
        ("with the reference in the cache against without", kept, CACHED_MAX),
    ):
        print(f"  {what:<66} {value:6.2f} x  target <= {target:g} {'MISSED' if value > target else ''}")
        missed = missed or value > target
    sys.exit(missed)


def _times(recipe: Recipe, made: Converted, count: int) -> tuple[Recipe, list[Converted]]:
    """Return a recipe of so many variants, and the one variant under as many names."""
    kind = next(variant for variant in recipe.variants if variant.name == str(made.wanted.name))
    names = [f"v{number}" for number in range(count)]
    variants = tuple(msgspec.structs.replace(kind, name=name) for name in names)
    copies = [
        dataclasses.replace(made, wanted=dataclasses.replace(made.wanted, name=variant_name(name))) for name in names
    ]
    return msgspec.structs.replace(recipe, variants=variants), copies


if __name__ == "__main__":
    main()
