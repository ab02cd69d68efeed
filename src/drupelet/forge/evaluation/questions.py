"""Asking a variant: the canonical prompts with what a good answer satisfies, and enough others to know its speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from drupelet.engine.canonical import judge
from drupelet.engine.client import Answer
from drupelet.engine.spec import EngineAnswered
from drupelet.forge.evaluation.bench import Bench, run_spec
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe
from drupelet.forge.report import CanonicalResult
from drupelet.forge.runners.port import Runner

_SPEED_PROMPTS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a variant showed. Times in milliseconds, memory in bytes."""

    load_ms: float = 0.0
    ttft_ms: float = 0.0
    answer_ms: float = 0.0
    tokens_per_second: float = 0.0
    memory_bytes: int = 0
    canonical: tuple[CanonicalResult, ...] = ()


def ask_variant(recipe: Recipe, artifact: Artifact, runner: Runner, bench: Bench) -> Seen:
    """Run it, ask it the canonical prompts, then enough others to measure its speed. Raises `StartFailed`."""
    with runner.start(run_spec(recipe, artifact), runtime_folder=bench.runtime_folder) as session:
        results, answers = [], []
        for prompt in recipe.canonical_prompts:
            try:
                answer = session.ask([{"role": "user", "content": prompt.prompt}], tokens_max=prompt.tokens_max)
            except EngineAnswered as error:
                results.append(CanonicalResult(id=prompt.id, passed=False, why=error.what))
                continue
            answers.append(answer)
            passed, why = judge(answer.text, tokens=answer.tokens, expectations=prompt.expect)
            results.append(CanonicalResult(id=prompt.id, passed=passed, why=why[:1000]))
        plan = recipe.evaluation
        for text in plan.prompts[:_SPEED_PROMPTS_MAX]:
            answers.append(session.ask([{"role": "user", "content": text}], tokens_max=plan.answer_tokens_max))
        return Seen(
            load_ms=session.start_ms,
            ttft_ms=statistics.median(answer.ttft_ms for answer in answers) if answers else 0.0,
            answer_ms=statistics.median(answer.duration_ms for answer in answers) if answers else 0.0,
            tokens_per_second=speed(answers),
            memory_bytes=session.memory_bytes_peak(),
            canonical=tuple(results),
        )


def speed(answers: Sequence[Answer]) -> float:
    """Return the median tokens a second; an answer's first token belongs to reading the prompt."""
    speeds = [1000 * (one.tokens - 1) / one.decode_ms for one in answers if one.tokens > 1 and one.decode_ms > 0]
    return statistics.median(speeds) if speeds else 0.0
