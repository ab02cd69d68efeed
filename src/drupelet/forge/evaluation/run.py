"""One evaluation: the reference once, then each variant on its own, so that the cost is linear in the variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from drupelet.engine.spec import EngineError
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.convert import Converted
from drupelet.forge.errors import EvaluationRefused
from drupelet.forge.evaluation.bench import Bench, run_spec
from drupelet.forge.evaluation.budgets import canonical_findings, cost_findings, cut_findings, quality_findings
from drupelet.forge.evaluation.costs import cost_full, cost_short, median_ms, speed
from drupelet.forge.evaluation.distance import QUANTILES, Distance, compare
from drupelet.forge.evaluation.judges import REFUSAL_PHRASES, Judges
from drupelet.forge.evaluation.questions import Asked, ask, ask_canonical, cut_off, repeat, verdicts
from drupelet.forge.evaluation.reference import Reference, known_reference
from drupelet.forge.evaluation.regressions import Verdict, group_findings, group_results
from drupelet.forge.evaluation.replaced import Replaced, verdicts_before
from drupelet.forge.evaluation.tongue import Tongue, tongue_findings, tongue_of
from drupelet.forge.evaluation.weights import weight_findings
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe, RecipeVariant
from drupelet.forge.report import CanonicalResult, CostAt, Emulated, Report, VariantReport
from drupelet.forge.runners.port import Runner

_PLAIN_MAX = 16
"""Prompts of the evaluation that a variant answers; the reference answers all."""
_FINDINGS_MAX = 100
_FINDING_CHARACTERS_MAX = 900


def evaluate(
    recipe: Recipe,
    made: Sequence[Converted],
    *,
    reference: Artifact,
    checkpoint: Checkpoint,
    bench: Bench,
    replaced: Replaced | None = None,
) -> Report:
    """Return the report on all variants, whether or not they pass; `require_pass` refuses.

    Raises `StartFailed` only if the reference itself cannot be run: a variant that cannot is a finding.
    """
    tongue = tongue_of(checkpoint, (*recipe.evaluation.prompts, *recipe.evaluation.texts))
    known = known_reference(recipe, reference, checkpoint, tongue, bench)
    line = _Line(recipe=recipe, bench=bench, known=known, tongue=tongue, judges=judges_of(recipe), replaced=replaced)
    variants = tuple(line.variant(variant, one) for variant, one in _paired(recipe, made))
    emulated = tuple(line.emulated(variant, one) for variant, one in _paired(recipe, made) if line.emulates(variant))
    findings = known.findings + tuple(f"{one.name}: {finding}" for one in variants for finding in one.findings)
    findings += tuple(f"{one.variant} on {one.processor}: {words}" for one in emulated for words in wrong_of(one))
    notes = list(tongue.notes)
    if not known.check.judged:
        notes.append(f"the reference was not compared with the checkpoint: {known.check.why}")
    return Report(
        reference=reference.digest.text,
        reference_check=known.check,
        checkpoint=checkpoint.digest.text,
        replaces=str(replaced.manifest.release) if replaced is not None else "",
        sequences=len(known.sequences),
        positions=sum(known.logits.lengths),
        quantiles=QUANTILES,
        passed=not findings,
        findings=findings,
        notes=tuple(notes),
        variants=variants,
        emulated=emulated,
    )


def wrong_of(emulated: Emulated) -> list[str]:
    """Return what went wrong on the emulated processor."""
    return [emulated.failed] if emulated.failed else canonical_findings(emulated.canonical)


def require_pass(report: Report, *, override: str = "") -> None:
    """Raise `EvaluationRefused` with the findings, unless a reason to override them is given."""
    if not report.passed and not override.strip():
        raise EvaluationRefused(report.findings)


def judges_of(recipe: Recipe) -> Judges:
    """Return what this recipe's checks are judged with; the embedding is loaded only if a check needs it."""
    similarity = None
    if any(expectation.kind == "semantic" for check in recipe.checks for expectation in check.expect):
        from drupelet.forge.evaluation.semantic import installed_similarity

        similarity = installed_similarity()
    return Judges(refusal_phrases=(*REFUSAL_PHRASES, *recipe.evaluation.refusal_phrases), similarity=similarity)


def _paired(recipe: Recipe, made: Sequence[Converted]) -> list[tuple[RecipeVariant, Converted]]:
    by_name = {str(one.wanted.name): one for one in made}
    return [(variant, by_name[variant.name]) for variant in recipe.variants if variant.name in by_name]


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What is known of one variant so far."""

    load_ms: float = 0.0
    asked: Asked | None = None
    costs: tuple[CostAt, ...] = ()
    distance: Distance | None = None
    before: tuple[Verdict, ...] | None = None
    deterministic: bool | None = None
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """What every variant is judged with."""

    recipe: Recipe
    bench: Bench
    known: Reference
    tongue: Tongue
    judges: Judges
    replaced: Replaced | None

    def variant(self, variant: RecipeVariant, made: Converted) -> VariantReport:
        """Measure and judge one variant."""
        runner, seen = self.bench.runners.get(variant.file_format), _Seen()
        if runner is None:
            if variant.evaluated_elsewhere:
                seen.notes.append(f"not run here; the recipe says: {variant.evaluated_elsewhere}")
            else:
                seen.findings.append(f"nothing here runs files of the format {variant.file_format}")
            return self._report(variant, made, seen, "")
        try:
            self._weights(made.artifact, variant, seen)
            self._answers(made.artifact, runner, variant, seen)
            self._distance(made.artifact, runner, variant, seen)
            self._before(variant, seen)
        except EngineError as error:
            seen.findings.insert(0, f"it does not run: {error.what}")
        return self._report(variant, made, seen, runner.tool)

    def emulates(self, variant: RecipeVariant) -> bool:
        """Whether the canonical prompts of this variant are asked on an emulated processor, too."""
        return self.bench.emulated is not None and self.bench.emulated.file_format == variant.file_format

    def emulated(self, variant: RecipeVariant, made: Converted) -> Emulated:
        """Ask the canonical prompts on the emulated processor."""
        runner = self.bench.emulated
        if runner is None:
            raise ValueError("there is no emulator")
        self.bench.progress(f"asking {variant.name} on {runner.tool}")
        canonical: tuple[CanonicalResult, ...] = ()
        failed = ""
        try:
            spec = run_spec(self.recipe, made.artifact)
            with runner.start(spec, runtime_folder=self.bench.runtime_folder) as session:
                canonical = ask_canonical(self.recipe, session)
        except EngineError as error:
            failed = f"it does not run: {error.what}"[:_FINDING_CHARACTERS_MAX]
        return Emulated(variant=variant.name, processor=runner.tool, canonical=canonical, failed=failed)

    def _weights(self, artifact: Artifact, variant: RecipeVariant, seen: _Seen) -> None:
        """Compare every block with the reference's. Unreadable files are left to the runner, whose words are better."""
        if variant.file_format != "gguf" or artifact.digest == self.known.digest or not self.recipe.evaluation.weights:
            return
        self.bench.progress(f"comparing the weights of {variant.name}")
        try:
            seen.findings += weight_findings(self.known.artifact.path, artifact.path)
        except (ValueError, LookupError, ArithmeticError, RuntimeError) as error:
            seen.notes.append(f"its weights were not compared one by one: {str(error)[:200] or type(error).__name__}")

    def _answers(self, artifact: Artifact, runner: Runner, variant: RecipeVariant, seen: _Seen) -> None:
        """Ask it, ask it again, and start it once more: the same words each time."""
        self.bench.progress(f"asking {variant.name}")
        spec = run_spec(self.recipe, artifact)
        with runner.start(spec, runtime_folder=self.bench.runtime_folder) as session:
            seen.load_ms = session.start_ms
            if artifact.digest != self.known.digest:  # of the reference this is known
                seen.findings += tongue_findings(self.tongue, session)
            asked = ask(self.recipe, session, self.judges, plain_max=_PLAIN_MAX)
            first, second = repeat(self.recipe, session), repeat(self.recipe, session)
            full = cost_full(self.recipe, session)
            seen.asked, seen.costs = asked, (cost_short(asked.answers, session), *([full] if full else []))
        with runner.start(spec, runtime_folder=self.bench.runtime_folder) as session:
            third = repeat(self.recipe, session)
        seen.deterministic = first == second == third
        if not seen.deterministic:
            when = "after a restart" if first == second else "asked twice"
            seen.findings.append(f"not deterministic: {when}, the same prompt got another answer at temperature 0")

    def _distance(self, artifact: Artifact, runner: Runner, variant: RecipeVariant, seen: _Seen) -> None:
        known, tokens = self.known, self.known.tokens
        if artifact.digest == known.digest:
            # The same bytes give the same logits; computing them again would measure nothing.
            seen.distance = compare(known.logits, known.logits, tokens)
            return
        self.bench.progress(f"comparing {variant.name} with the reference")
        scratch = self.bench.cache / f"{artifact.digest.hex[:32]}.part"
        self.bench.disk.part(scratch).close()
        try:
            logits = runner.logits(run_spec(self.recipe, artifact), tokens, scratch)
            if logits is None:
                seen.notes.append(f"its distance from f16 was not judged: {variant.file_format} gives no logits here")
            elif logits.vocab != known.logits.vocab:
                seen.findings.append(f"its vocabulary has {logits.vocab} tokens, the reference's {known.logits.vocab}")
            else:
                seen.distance = compare(known.logits, logits, tokens)
        finally:
            self.bench.disk.remove(scratch)

    def _before(self, variant: RecipeVariant, seen: _Seen) -> None:
        if self.replaced is None:
            return
        release, old = self.replaced.manifest.release, self.replaced.like(variant.name, variant.quantization)
        if old is None:
            seen.notes.append(f"not compared with {release}, which has no such variant")
            return
        found = verdicts_before(self.replaced, old, self.recipe, self.judges, self.bench)
        if isinstance(found, str):
            # Asked for and not to be had: that a comparison failed must not look like that it found nothing.
            seen.findings.append(f"not compared with {release}: {found}")
        else:
            seen.before = found

    def _report(self, variant: RecipeVariant, made: Converted, seen: _Seen, tool: str) -> VariantReport:
        asked = seen.asked
        groups = group_results(verdicts(asked), seen.before) if asked is not None else ()
        answers = asked.answers if asked is not None else ()
        memory = max((cost.memory_bytes for cost in seen.costs), default=0)
        report = VariantReport(
            name=variant.name,
            quantization=variant.quantization,
            file_format=variant.file_format,
            runner=tool,
            digest=made.artifact.digest.text,
            size_bytes=made.artifact.size_bytes,
            convert_ms=round(made.duration_ms),
            load_ms=round(seen.load_ms),
            ttft_ms=round(median_ms([answer.ttft_ms for answer in answers]), 2),
            answer_ms=round(median_ms([answer.duration_ms for answer in answers]), 2),
            tokens_per_second=round(speed(answers), 1),
            memory_bytes=memory,
            costs=seen.costs,
            quality=seen.distance.quality if seen.distance else None,
            kl_quantiles=tuple(round(value, 7) for value in seen.distance.quantiles) if seen.distance else (),
            worst_prompt=self.known.sequences[seen.distance.worst_sequence].source[:500] if seen.distance else "",
            worst_kl=round(seen.distance.worst_mean, 7) if seen.distance else 0.0,
            perplexity=round(seen.distance.perplexity, 3) if seen.distance else 0.0,
            same_answers=_same_answers(asked, self.known),
            deterministic=seen.deterministic,
            canonical=asked.canonical if asked is not None else (),
            checks=asked.checks if asked is not None else (),
            groups=groups,
            notes=tuple(seen.notes),
        )
        findings = seen.findings
        if asked is not None:
            findings = [
                *seen.findings,
                *canonical_findings(report.canonical),
                *group_findings(groups, self.recipe.groups),
                *cut_findings(cut_off(asked.plain), [one.cut for one in self.known.sequences]),
                *cost_findings(self.recipe.budgets, report),
            ]
        if report.quality is not None:
            findings = [*findings, *quality_findings(report, self.recipe.quality_of(variant))]
        return _with_findings(report, findings)


def _with_findings(report: VariantReport, findings: Sequence[str]) -> VariantReport:
    kept = tuple(finding[:_FINDING_CHARACTERS_MAX] for finding in findings[:_FINDINGS_MAX])
    return msgspec.structs.replace(report, findings=kept)


def _same_answers(asked: Asked | None, known: Reference) -> float | None:
    """Return the share of plain prompts answered as the reference did; the sequences begin with the prompts."""
    if asked is None or not asked.plain:
        return None
    pairs = list(zip(asked.plain, known.sequences, strict=False))
    return round(sum(answer.text == sequence.text for answer, sequence in pairs) / len(pairs), 4)
