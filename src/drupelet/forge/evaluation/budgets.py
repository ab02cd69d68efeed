"""From numbers to findings: what breaks a budget, each in one sentence with both numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from drupelet.forge.evaluation.intervals import loss_p_value
from drupelet.forge.recipe import QualityBudget
from drupelet.forge.report import CanonicalResult, VariantReport
from drupelet.wire.manifest import Budgets

CUT_P_MAX = 0.01
"""Answers that ran into the limit where the reference's ended: refused when chance explains them less often."""


def canonical_findings(results: Sequence[CanonicalResult]) -> list[str]:
    """Return one finding for each canonical prompt that was not answered well."""
    return [f"canonical prompt {result.id}: {result.why}" for result in results if not result.passed]


def quality_findings(report: VariantReport, budget: QualityBudget) -> list[str]:
    """Return what is farther from the reference than the budget allows."""
    quality = report.quality
    if quality is None:
        return []
    findings = []
    worst = f"; worst on {report.worst_prompt[:80]!r}" if report.worst_prompt else ""
    for name, value, limit in (
        ("mean KL", quality.kl_mean, budget.kl_mean_max),
        ("p99 KL", quality.kl_p99, budget.kl_p99_max),
    ):
        if limit is not None and not value <= limit:
            findings.append(f"{name} to f16 is {value:.4g} nats where {limit:g} is allowed{worst}")
    if not quality.top1_agreement >= budget.top1_agreement_min:
        agreed, wanted = quality.top1_agreement, budget.top1_agreement_min
        findings.append(
            f"the likeliest token agrees with f16 in {agreed:.1%} of positions where {wanted:.1%} is required"
        )
    return findings


def cost_findings(budgets: Budgets, seen: VariantReport) -> list[str]:
    """Return which of the device's absolute budgets are broken on this machine already."""
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


def cut_findings(ours: Sequence[bool], theirs: Sequence[bool]) -> list[str]:
    """Return a finding if the token limit ended answers that the reference ended itself, pair by pair."""
    pairs = list(zip(ours, theirs, strict=False))
    lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    if lost and loss_p_value(lost, won) <= CUT_P_MAX:
        return [f"{lost} of {len(pairs)} answers run into the token limit where the reference's end by themselves"]
    return []
