"""What the page's three charts show, as plain data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupelet.forge.report import Report, VariantReport

KL_FLOOR = 1e-8
"""Nats below which a divergence is drawn as this: a logarithmic axis has no zero."""
_MIB = 1 << 20


def charts(report: Report) -> dict[str, Any]:
    """Return the data of all charts; one that has nothing to show is None."""
    measured = [one for one in report.variants if one.quality is not None]
    return {"quality": _quality(measured), "kl": _distribution(report, measured), "groups": _groups(report)}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indexes of points (cost, loss) that no other point beats in both, by rising cost."""
    order = sorted(range(len(points)), key=lambda index: points[index])
    best, kept = float("inf"), []
    for index in order:
        if points[index][1] < best:
            best = points[index][1]
            kept.append(index)
    return kept


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
