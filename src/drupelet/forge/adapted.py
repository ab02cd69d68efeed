"""Judging an adapter that is a variant of its own: base and adapter together, against the two merged.

The reference of such a variant is what the adapter was trained to make of its base: the merged checkpoint in f16,
which is itself held against the merged weights as any reference is. So a wrong adapter, one that the tool converted
badly, and a base too coarse for it all show as a distance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from drupelet.forge.adapter import Adapter
from drupelet.forge.checkpoint import Checkpoint, open_checkpoint
from drupelet.forge.convert import Converted
from drupelet.forge.evaluation import Bench, evaluate
from drupelet.forge.formats.port import Format, Progress
from drupelet.forge.merge import merge
from drupelet.forge.recipe import Recipe, RecipeVariant
from drupelet.forge.report import Report


def evaluate_adapter(
    recipe: Recipe,
    variant: RecipeVariant,
    made: Sequence[Converted],
    *,
    adapter: Adapter,
    checkpoint: Checkpoint,
    formats: Mapping[str, Format],
    bench: Bench,
    progress: Progress,
) -> Report:
    """Return the report on one adapter variant. Raises what merging, converting and evaluating raise."""
    by_name = {str(one.wanted.name): one for one in made}
    if variant.adapter is None:
        raise TypeError(f"{variant.name} is no adapter")
    base, own = by_name[variant.adapter.base].artifact, by_name[variant.name]
    stem = f"merged-{checkpoint.digest.hex[:12]}-{adapter.digest.hex[:12]}"
    folder = bench.cache / stem
    if not folder.exists():
        merge(checkpoint, adapter, folder, disk=bench.disk, progress=progress)
    merged = open_checkpoint(folder)
    reference = formats["gguf"].write(
        merged,
        bench.cache / f"{stem}.gguf",
        quantization="f16",
        model_name=recipe.model,
        disk=bench.disk,
        progress=progress,
    )
    applied = dataclasses.replace(own, artifact=dataclasses.replace(own.artifact, base=base))
    return evaluate(recipe, [applied], reference=reference, checkpoint=merged, bench=bench)


def joined(recipe: Recipe, whole: Report, adapted: Mapping[str, Report]) -> Report:
    """Return one report on all variants, in the recipe's order; `adapted` is by the variant's name."""
    found = {one.name: one for report in (whole, *adapted.values()) for one in report.variants}
    findings, notes = list(whole.findings), list(whole.notes)
    for name, report in adapted.items():
        own = tuple(f"{name}: {finding}" for one in report.variants for finding in one.findings)
        findings += own
        findings += [f"{name}, merged: {finding}" for finding in report.findings if finding not in own]
        notes.append(f"{name} is compared with its adapter merged into the checkpoint, {report.reference}")
    return msgspec.structs.replace(
        whole,
        passed=not findings,
        findings=tuple(findings),
        notes=tuple(notes),
        variants=tuple(found[variant.name] for variant in recipe.variants if variant.name in found),
    )
