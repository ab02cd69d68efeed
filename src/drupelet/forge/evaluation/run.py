"""One evaluation: the reference once, then each variant on its own, so that the cost is linear in the variants."""

from __future__ import annotations

from collections.abc import Sequence

from drupelet.engine.spec import StartFailed
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.convert import Converted
from drupelet.forge.errors import EvaluationRefused
from drupelet.forge.evaluation.bench import Bench, run_spec
from drupelet.forge.evaluation.budgets import canonical_findings, cost_findings, quality_findings
from drupelet.forge.evaluation.distance import compare
from drupelet.forge.evaluation.questions import Seen, ask_variant
from drupelet.forge.evaluation.reference import Reference, known_reference
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe, RecipeVariant
from drupelet.forge.report import Report, VariantReport
from drupelet.forge.runners.port import Runner
from drupelet.wire.manifest import Quality


def evaluate(
    recipe: Recipe, made: Sequence[Converted], *, reference: Artifact, checkpoint: Checkpoint, bench: Bench
) -> Report:
    """Return the report on all variants, whether or not they pass; `require_pass` refuses.

    Raises `StartFailed` only if the reference itself cannot be run: a variant that cannot is a finding.
    """
    known = known_reference(recipe, reference, checkpoint, bench)
    variants = tuple(_evaluate_variant(recipe, variant, one, known, bench) for variant, one in _paired(recipe, made))
    findings = known.findings + tuple(f"{one.name}: {finding}" for one in variants for finding in one.findings)
    return Report(
        reference=reference.digest.text,
        checkpoint=checkpoint.digest.text,
        sequences=len(known.sequences),
        passed=not findings,
        findings=findings,
        variants=variants,
    )


def require_pass(report: Report, *, override: str = "") -> None:
    """Raise `EvaluationRefused` with the findings, unless a reason to override them is given."""
    if not report.passed and not override.strip():
        raise EvaluationRefused(report.findings)


def _paired(recipe: Recipe, made: Sequence[Converted]) -> list[tuple[RecipeVariant, Converted]]:
    by_name = {str(one.wanted.name): one for one in made}
    return [(variant, by_name[variant.name]) for variant in recipe.variants if variant.name in by_name]


def _evaluate_variant(
    recipe: Recipe, variant: RecipeVariant, made: Converted, known: Reference, bench: Bench
) -> VariantReport:
    runner = bench.runners.get(variant.file_format)
    if runner is None:
        return _report(variant, made, Seen(), None, (f"nothing here runs files of the format {variant.file_format}",))
    artifact = made.artifact
    bench.progress(f"asking {variant.name}")
    try:
        seen = ask_variant(recipe, artifact, runner, bench)
        quality = _quality(recipe, variant, artifact, known, runner, bench)
    except StartFailed as error:
        return _report(variant, made, Seen(), None, (f"it does not run: {error.what}",))
    findings = [*canonical_findings(seen), *cost_findings(recipe.budgets, seen)]
    if quality is not None:
        findings += quality_findings(quality, recipe.quality_of(variant))
    return _report(variant, made, seen, quality, findings)


def _quality(
    recipe: Recipe, variant: RecipeVariant, artifact: Artifact, known: Reference, runner: Runner, bench: Bench
) -> Quality | None:
    """Return the distance to the reference, or None where the format gives no logits."""
    if artifact.digest == known.digest:
        # The same bytes give the same logits; computing them again would measure nothing.
        return Quality(kl_mean=0.0, kl_p99=0.0, kl_max=0.0, top1_agreement=1.0, tokens=sum(known.logits.lengths))
    bench.progress(f"comparing {variant.name} with the reference")
    scratch = bench.cache / f"{artifact.digest.hex[:32]}.part"
    bench.disk.part(scratch).close()
    try:
        logits = runner.logits(run_spec(recipe, artifact), known.sequences, scratch)
        return None if logits is None else compare(known.logits, logits, known.sequences).quality
    finally:
        bench.disk.remove(scratch)


def _report(
    variant: RecipeVariant, made: Converted, seen: Seen, quality: Quality | None, findings: Sequence[str]
) -> VariantReport:
    return VariantReport(
        name=variant.name,
        quantization=variant.quantization,
        digest=made.artifact.digest.text,
        size_bytes=made.artifact.size_bytes,
        convert_ms=round(made.duration_ms),
        load_ms=round(seen.load_ms),
        ttft_ms=round(seen.ttft_ms, 2),
        answer_ms=round(seen.answer_ms, 2),
        tokens_per_second=round(seen.tokens_per_second, 1),
        memory_bytes=seen.memory_bytes,
        quality=quality,
        canonical=seen.canonical,
        findings=tuple(finding[:900] for finding in findings),
    )
