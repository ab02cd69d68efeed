"""Judging every variant before it may be packed: its answers, its distance from the f16 reference, its costs.

The theory. Perplexity hardly moves under quantization; what a user notices is another token. So each variant's
distribution over the next token is compared with the reference's at every position of the evaluation's sequences: the
Kullback-Leibler divergence KL(reference || variant) in nats, its mean, 99th percentile and maximum, and how often the
likeliest token is the same. The sequences are the recipe's questions, in the chat template, each followed by the
reference's own answer, so that the comparison is made where the model will work.

Speeds are those of the machine the forge runs on. A budget broken here would be broken on a slower device too; one that
is kept here says nothing about a device, which holds its own trial. Medians are held to them, so that one hiccup of a
busy machine refuses nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable.port import Disk
from drupelet.engine.canonical import judge
from drupelet.engine.child import Child
from drupelet.engine.client import Answer, EngineClient
from drupelet.engine.logits import Logits, compute
from drupelet.engine.spec import ChildSpec, EngineAnswered, StartFailed
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.convert import Converted
from drupelet.forge.errors import EvaluationRefused
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import QualityBudget, Recipe, RecipeVariant
from drupelet.forge.report import CanonicalResult, Report, VariantReport
from drupelet.forge.vocab import load_processor
from drupelet.wire.manifest import Quality

CACHE_VERSION = 1
_SEQUENCES_BYTES_MAX = 64 << 20
_SPEED_PROMPTS_MAX = 16

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and with what the evaluation works. `cache` keeps the reference's logits between runs."""

    disk: Disk
    cache: Path
    runtime_folder: Path
    """Short path for the children's sockets."""
    progress: Progress = lambda _doing: None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """The f16 model's view of the evaluation: the token sequences and its logits for them."""

    digest: Digest
    sequences: tuple[tuple[int, ...], ...]
    logits: Logits
    findings: tuple[str, ...]
    """What the reference itself gets wrong, such as a vocabulary that splits texts in another way."""


def evaluate(
    recipe: Recipe, made: Sequence[Converted], *, reference: Artifact, checkpoint: Checkpoint, bench: Bench
) -> Report:
    """Return the report on all variants, whether or not they pass; `require_pass` refuses.

    Raises `StartFailed` only if the reference itself cannot be run: a variant that cannot is a finding.
    """
    known = _reference(recipe, reference, checkpoint, bench)
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


def divergence(reference: NDArray[np.float32], variant: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(reference || variant) in nats at each position, from logits of shape (positions, vocabulary)."""
    p, q = _log_softmax(reference), _log_softmax(variant)
    # Rounding may leave a divergence of two equal distributions at -1e-17.
    distance: NDArray[np.float64] = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return distance


def compare(reference: Logits, variant: Logits) -> Quality:
    """Return how far `variant` is from `reference`, read sequence by sequence."""
    if (reference.lengths, reference.vocab) != (variant.lengths, variant.vocab):
        raise BadInput("the logits are of different sequences or vocabularies", where=str(variant.path))
    distances: list[NDArray[np.float64]] = []
    same = 0
    for ours, theirs in zip(reference, variant, strict=True):
        distances.append(divergence(ours, theirs))
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    every = np.concatenate(distances)
    return Quality(
        kl_mean=float(every.mean()),
        kl_p99=float(np.quantile(every, 0.99)),
        kl_max=float(every.max()),
        top1_agreement=same / every.size,
        tokens=int(every.size),
    )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    shifted = np.subtract(values, values.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = np.subtract(shifted, np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    return result


def _paired(recipe: Recipe, made: Sequence[Converted]) -> list[tuple[RecipeVariant, Converted]]:
    by_name = {str(one.wanted.name): one for one in made}
    return [(variant, by_name[variant.name]) for variant in recipe.variants if variant.name in by_name]


def _spec(recipe: Recipe, artifact: Artifact) -> ChildSpec:
    return ChildSpec(
        model=artifact.path,
        alias=recipe.model,
        context_tokens=recipe.context_tokens,
        threads=recipe.evaluation.threads,
        digest=artifact.digest,
    )


def _reference(recipe: Recipe, artifact: Artifact, checkpoint: Checkpoint, bench: Bench) -> _Reference:
    """Return the reference's sequences and logits, from the cache if the same model met the same questions before."""
    plan = recipe.evaluation
    asked = json.dumps([CACHE_VERSION, artifact.digest.text, recipe.context_tokens, plan.prompts, plan.texts])
    key = hashlib.sha256(f"{asked}{plan.answer_tokens_max}".encode()).hexdigest()[:32]
    notes, logits_path = bench.cache / f"{key}.json", bench.cache / f"{key}.logits"
    if bench.disk.exists(notes) and bench.disk.exists(logits_path):
        known = json.loads(bench.disk.read(notes, bytes_max=_SEQUENCES_BYTES_MAX))
        sequences = tuple(tuple(sequence) for sequence in known["sequences"])
        logits = Logits(path=logits_path, lengths=tuple(map(len, sequences)), vocab=known["vocab"])
        if bench.disk.size(logits_path) == 4 * logits.vocab * sum(logits.lengths):
            return _Reference(
                digest=artifact.digest, sequences=sequences, logits=logits, findings=tuple(known["findings"])
            )
    bench.progress("asking the f16 reference")
    found, findings = asyncio.run(_ask_reference(recipe, artifact, checkpoint, bench))
    part = bench.cache / f"{key}.part"
    bench.disk.part(part).close()  # makes the folder
    bench.progress("computing the f16 reference's logits")
    made = compute(artifact.path, found, part, threads=plan.threads)
    bench.disk.publish(part, logits_path)
    record = {"sequences": found, "vocab": made.vocab, "findings": findings}
    bench.disk.replace(notes, json.dumps(record).encode())
    logits = Logits(path=logits_path, lengths=made.lengths, vocab=made.vocab)
    return _Reference(
        digest=artifact.digest, sequences=tuple(map(tuple, found)), logits=logits, findings=tuple(findings)
    )


async def _ask_reference(
    recipe: Recipe, artifact: Artifact, checkpoint: Checkpoint, bench: Bench
) -> tuple[list[list[int]], list[str]]:
    """Return the evaluation's token sequences, and what is wrong with the model's tokens."""
    plan = recipe.evaluation
    child = await Child.start(_spec(recipe, artifact), runtime_folder=bench.runtime_folder)
    try:
        client = child.client()
        sequences = [client.tokenize(text) for text in plan.texts]
        for prompt in plan.prompts:
            message = [{"role": "user", "content": prompt}]
            answer = client.chat(message, tokens_max=plan.answer_tokens_max)
            sequences.append(client.tokenize(client.apply_template(message) + answer.text))
        findings = _token_findings(client, checkpoint, (*plan.prompts, *plan.texts))
    finally:
        await child.stop()
    return [sequence[: recipe.context_tokens] for sequence in sequences if sequence], findings


def _token_findings(client: EngineClient, checkpoint: Checkpoint, texts: Sequence[str]) -> list[str]:
    """Compare the server's tokens with SentencePiece's: other tokens would be another language to the model."""
    processor = load_processor(checkpoint)
    for text in texts:
        ours, theirs = client.tokenize(text, special=False), [int(token) for token in processor.EncodeAsIds(text)]
        if ours != theirs:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            return [f"llama.cpp splits {shown!r} into {len(ours)} tokens in another way than the tokenizer does"]
    return []


def _evaluate_variant(
    recipe: Recipe, variant: RecipeVariant, made: Converted, known: _Reference, bench: Bench
) -> VariantReport:
    artifact = made.artifact
    bench.progress(f"asking {variant.name}")
    try:
        seen = asyncio.run(_ask_variant(recipe, artifact, bench))
        quality = _quality(recipe, variant, artifact, known, bench)
    except StartFailed as error:
        return _report(variant, made, _Seen(), None, (f"it does not run: {error.what}",))
    findings = [*_canonical_findings(seen), *_quality_findings(quality, recipe.quality_of(variant))]
    return _report(variant, made, seen, quality, (*findings, *_budget_findings(recipe, seen)))


def _quality(recipe: Recipe, variant: RecipeVariant, artifact: Artifact, known: _Reference, bench: Bench) -> Quality:
    if artifact.digest == known.digest:
        # The same bytes give the same logits; computing them again would measure nothing.
        return Quality(kl_mean=0.0, kl_p99=0.0, kl_max=0.0, top1_agreement=1.0, tokens=sum(known.logits.lengths))
    bench.progress(f"comparing {variant.name} with the reference")
    scratch = bench.cache / f"{artifact.digest.hex[:32]}.part"
    bench.disk.part(scratch).close()
    try:
        return compare(
            known.logits, compute(artifact.path, known.sequences, scratch, threads=recipe.evaluation.threads)
        )
    finally:
        bench.disk.remove(scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a variant's child showed. Times in milliseconds, memory in bytes."""

    load_ms: float = 0.0
    ttft_ms: float = 0.0
    answer_ms: float = 0.0
    tokens_per_second: float = 0.0
    memory_bytes: int = 0
    canonical: tuple[CanonicalResult, ...] = ()


async def _ask_variant(recipe: Recipe, artifact: Artifact, bench: Bench) -> _Seen:
    """Run a child, ask it the canonical prompts, then enough others to measure its speed."""
    child = await Child.start(_spec(recipe, artifact), runtime_folder=bench.runtime_folder)
    try:
        client = child.client()
        results, answers = [], []
        for prompt in recipe.canonical_prompts:
            try:
                answer = client.chat([{"role": "user", "content": prompt.prompt}], tokens_max=prompt.tokens_max)
            except EngineAnswered as error:
                results.append(CanonicalResult(id=prompt.id, passed=False, why=error.what))
                continue
            answers.append(answer)
            passed, why = judge(answer.text, tokens=answer.tokens, expectations=prompt.expect)
            results.append(CanonicalResult(id=prompt.id, passed=passed, why=why[:1000]))
        plan = recipe.evaluation
        for text in plan.prompts[:_SPEED_PROMPTS_MAX]:
            answers.append(client.chat([{"role": "user", "content": text}], tokens_max=plan.answer_tokens_max))
        return _Seen(
            load_ms=child.start_ms,
            ttft_ms=statistics.median(answer.ttft_ms for answer in answers) if answers else 0.0,
            answer_ms=statistics.median(answer.duration_ms for answer in answers) if answers else 0.0,
            tokens_per_second=_speed(answers),
            memory_bytes=child.rss_bytes_peak(),
            canonical=tuple(results),
        )
    finally:
        await child.stop()


def _speed(answers: Sequence[Answer]) -> float:
    """Return the median tokens a second; an answer's first token belongs to reading the prompt."""
    speeds = [1000 * (one.tokens - 1) / one.decode_ms for one in answers if one.tokens > 1 and one.decode_ms > 0]
    return statistics.median(speeds) if speeds else 0.0


def _canonical_findings(seen: _Seen) -> list[str]:
    return [f"canonical prompt {result.id}: {result.why}" for result in seen.canonical if not result.passed]


def _quality_findings(quality: Quality, budget: QualityBudget) -> list[str]:
    findings = []
    for name, value, limit in (
        ("mean KL", quality.kl_mean, budget.kl_mean_max),
        ("p99 KL", quality.kl_p99, budget.kl_p99_max),
    ):
        if limit is not None and not value <= limit:
            findings.append(f"{name} to f16 is {value:.4g} nats where {limit:g} is allowed")
    if not quality.top1_agreement >= budget.top1_agreement_min:
        agreed, wanted = quality.top1_agreement, budget.top1_agreement_min
        findings.append(
            f"the likeliest token agrees with f16 in {agreed:.1%} of positions where {wanted:.1%} is required"
        )
    return findings


def _budget_findings(recipe: Recipe, seen: _Seen) -> list[str]:
    budgets = recipe.budgets
    findings = []
    for name, unit, value, limit in (
        ("loading", "ms", seen.load_ms, budgets.load_ms_max),
        ("the first token", "ms", seen.ttft_ms, budgets.ttft_ms_max),
        ("the median answer", "ms", seen.answer_ms, budgets.answer_ms_max),
        ("memory", "bytes", seen.memory_bytes, budgets.memory_bytes_max),
    ):
        if limit is not None and value > limit:
            findings.append(f"{name} takes {math.ceil(value)} {unit} where {limit} are allowed")
    least = budgets.tokens_per_second_min
    if least is not None and seen.tokens_per_second < least:
        findings.append(f"{seen.tokens_per_second:.1f} tokens a second where at least {least:g} are required")
    return findings


def _report(
    variant: RecipeVariant, made: Converted, seen: _Seen, quality: Quality | None, findings: Sequence[str]
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
