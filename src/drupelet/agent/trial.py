"""Whether a release that was tried on this device is good enough to route to: pure, and absolute.

A trial is judged against the manifest's expectations and budgets only. That it is slower than the release it replaces
is not decided here: one device and a handful of prompts cannot know, the fleet's gate can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drupelet.core.states import Reason
from drupelet.engine import canonical
from drupelet.wire.control import PromptResult, TrialReport
from drupelet.wire.manifest import Budgets, CanonicalPrompt, ReleaseManifest


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and its reason. `reason` is NONE if and only if the release passed."""

    reason: Reason
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the release may be used."""
        return self.reason is Reason.NONE


def judge(
    report: TrialReport, manifest: ReleaseManifest, *, load_ms: int, temperature_celsius: float | None
) -> Judgement:
    """Return whether a whole trial passed; the first thing that is wrong is the reason."""
    answers = judge_answers(report.results, manifest.canonical_prompts)
    if not answers.passed:
        return answers
    return _budgets(report, manifest.budgets, load_ms=load_ms, celsius=temperature_celsius) or Judgement(
        Reason.NONE, f"{len(report.results)} canonical prompts answered well"
    )


def judge_answers(results: Sequence[PromptResult], prompts: Sequence[CanonicalPrompt]) -> Judgement:
    """Return whether every prompt was answered as its expectations say. Nothing about speed."""
    by_id = {result.id: result for result in results}
    for prompt in prompts:
        result = by_id.get(prompt.id)
        if result is None:
            return Judgement(Reason.CANONICAL_FAILED, f"prompt {prompt.id} was not answered")
        if result.error:
            return Judgement(Reason.CANONICAL_FAILED, f"prompt {prompt.id}: {result.error}"[:1000])
        good, why = canonical.judge(result.text, tokens=result.tokens, expectations=prompt.expect)
        if not good:
            return Judgement(Reason.CANONICAL_FAILED, f"prompt {prompt.id}: {why}"[:1000])
    return Judgement(Reason.NONE, f"{len(prompts)} canonical prompts answered well")


def _budgets(report: TrialReport, budgets: Budgets, *, load_ms: int, celsius: float | None) -> Judgement | None:
    slow = Reason.TOO_SLOW
    if budgets.load_ms_max is not None and load_ms > budgets.load_ms_max:
        return Judgement(slow, f"loaded in {load_ms} ms, {budgets.load_ms_max} ms are allowed")
    for result in report.results:
        for said, value, limit in (
            ("first token", result.ttft_ms, budgets.ttft_ms_max),
            ("answer", result.answer_ms, budgets.answer_ms_max),
        ):
            if limit is not None and value > limit:
                return Judgement(slow, f"prompt {result.id}: {said} after {value:.0f} ms, {limit} ms are allowed")
        least = budgets.tokens_per_second_min
        if least is not None and result.tokens > 1 and result.tokens_per_second < least:
            rate = f"{result.tokens_per_second:.1f} tokens/s"
            return Judgement(slow, f"prompt {result.id}: {rate}, at least {least:g} are required")
    most = budgets.memory_bytes_max
    if most is not None and report.memory_bytes > most:
        return Judgement(Reason.MEMORY_EXCEEDED, f"{report.memory_bytes} bytes of memory, {most} are allowed")
    hot = budgets.temperature_celsius_max
    if hot is not None and celsius is not None and celsius > hot:
        return Judgement(Reason.TOO_HOT, f"{celsius:.1f} °C after the trial, {hot:.0f} °C are allowed")
    return None
