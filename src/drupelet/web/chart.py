"""A rollout's evidence over time as data for the chart: two panels, logarithmic, with the lines that decide. Pure.

The upper panel holds the evidence of harm, each metric with the evidence that rolls back; the lower one the evidence of
staying within the margin, with what a PASS needs. Evidence has no upper bound and may touch 0, so it is clipped to
what a logarithmic axis can show; the table beside the chart has the exact numbers.
"""

from __future__ import annotations

from typing import Any

from drupelet.fleet.views import RolloutPage
from drupelet.web.words import METRIC_WORDS, evidence, iso

FLOOR, CEILING = 1e-3, 1e9
POINTS_MAX = 600
"""Per curve; of more, every n-th and the last are drawn."""


def evidence_chart(page: RolloutPage) -> dict[str, Any] | None:
    """Return curves and lines, or None when there is nothing to draw yet."""
    if not page.evidence:
        return None
    curves = []
    for metric, threshold in page.thresholds.items():
        points = _thin([p for p in page.evidence if p.metric == metric])
        if not points:
            continue
        harm = [_clip(p.harm) for p in points]
        curves.append(
            {
                "metric": metric,
                "name": METRIC_WORDS.get(metric, metric),
                "at": [iso(p.at) for p in points],
                "harm": harm,
                "within": [None if p.noninferior is None else _clip(p.noninferior) for p in points],
                "threshold": threshold,
                "peak": max(harm),
            }
        )
    leader = _leader(curves)
    return {
        "curves": curves,
        "leader": leader["metric"] if leader else "",
        "rollback": leader["threshold"] if leader else None,
        "rollback_says": f"{leader['name']} rolls back at {evidence(leader['threshold'])}" if leader else "",
        "pass": page.pass_evidence,
        "pass_says": f"passes at {evidence(page.pass_evidence)}",
        "floor": FLOOR,
        "ceiling": CEILING,
    }


def _leader(curves: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The metric that is nearest to rolling back."""
    may = [curve for curve in curves if curve["threshold"] is not None]
    return max(may, key=lambda curve: curve["peak"] / curve["threshold"]) if may else None


def _thin(points: list[Any]) -> list[Any]:
    if len(points) <= POINTS_MAX:
        return points
    every = -(-len(points) // POINTS_MAX)
    return [*points[:-1:every], points[-1]]


def _clip(value: float) -> float:
    return min(max(value, FLOOR), CEILING)
