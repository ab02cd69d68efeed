"""What the pages' charts show, as plain data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupelet.forge.plan.pareto import pareto
from drupelet.forge.plan.plan import Plan
from drupelet.forge.report import Report, VariantReport

KL_FLOOR = 1e-8
"""Nats below which a divergence is drawn as this: a logarithmic axis has no zero."""
_MIB, _GIB = 1 << 20, 1 << 30


def charts(report: Report) -> dict[str, Any]:
    """Return the data of all charts; one that has nothing to show is None."""
    measured = [one for one in report.variants if one.quality is not None]
    return {"quality": _quality(measured), "kl": _distribution(report, measured), "groups": _groups(report)}


def _quality(measured: Sequence[VariantReport]) -> dict[str, Any] | None:
    if not measured:
        return None
    points = [(one.size_bytes / _MIB, max(one.quality.kl_mean, KL_FLOOR) if one.quality else 0) for one in measured]
    return {
        "names": [one.name for one in measured],
        "mib": [round(size, 3) for size, _ in points],
        "kl": [loss for _, loss in points],
        "refused": [bool(one.findings) for one in measured],
        "front": pareto(points),
        "floor": KL_FLOOR,
    }


def _distribution(report: Report, measured: Sequence[VariantReport]) -> dict[str, Any] | None:
    shown = [one for one in measured if one.kl_quantiles and max(one.kl_quantiles) > KL_FLOOR]
    if not shown:
        return None
    return {
        "at": [f"{share:.1%}".replace(".0%", "%") if share < 1 else "worst" for share in report.quantiles],
        "curves": [{"name": one.name, "kl": [max(value, KL_FLOOR) for value in one.kl_quantiles]} for one in shown],
    }


def _groups(report: Report) -> dict[str, Any] | None:
    """Return the change of each group against the replaced release, or without one the share answered well."""
    names = list(dict.fromkeys(group.name for one in report.variants for group in one.groups))
    if not names:
        return None
    compared = bool(report.replaces)
    curves = []
    for one in report.variants:
        known = {group.name: group for group in one.groups}
        rows: list[list[float] | None] = []
        for name in names:
            group = known.get(name)
            if group is None or (compared and group.regression is None) or group.total == group.unjudged:
                rows.append(None)
            elif compared and group.regression is not None:
                found = group.regression
                rows.append([-100 * found.drop, -100 * found.high, -100 * found.low])
            else:
                rows.append([100 * group.passed / (group.total - group.unjudged), 100 * group.low, 100 * group.high])
        curves.append({"name": one.name, "rows": rows})
    return {"compared": compared, "names": names, "curves": curves}


def plan_charts(plan: Plan) -> dict[str, Any]:
    """Return the data of a plan's charts; one that has nothing to show is None."""
    known = [one for one in plan.variants if one.memory_bytes and one.kl_mean is not None]
    capacities: dict[float, list[str]] = {}
    for board in plan.boards:
        capacities.setdefault(round(int(board["usable_bytes"]) / _GIB, 3), []).append(str(board["name"]))
    memory = {
        "names": [one.name for one in known],
        "gib": [one.memory_bytes[plan.context_tokens] / _GIB for one in known],
        "kl": [max(one.kl_mean or 0.0, KL_FLOOR) for one in known],
        "worth": [one.worth_having for one in known],
        "boards": [{"gib": size, "names": ", ".join(names)} for size, names in sorted(capacities.items())],
    }
    curves = []
    for one in plan.variants:
        rows: list[list[float] | None] = []
        for placed in one.boards:
            low, high = placed.tokens_per_second_low, placed.tokens_per_second_high
            rows.append([round((low * high) ** 0.5, 2), low, high] if placed.fits else None)
        if any(rows):
            curves.append({"name": one.name, "rows": rows})
    names = [str(board["name"]) for board in plan.boards]
    speed = {"names": names, "curves": curves, "least": plan.tokens_per_second_min}
    return {"memory": memory if known else None, "speed": speed if curves else None}
