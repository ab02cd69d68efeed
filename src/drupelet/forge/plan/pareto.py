"""Which of several choices no other beats in both cost and loss. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indexes of points (cost, loss) that no other point beats in both, by rising cost."""
    order = sorted(range(len(points)), key=lambda index: points[index])
    best, kept = float("inf"), []
    for index in order:
        if points[index][1] < best:
            best = points[index][1]
            kept.append(index)
    return kept
