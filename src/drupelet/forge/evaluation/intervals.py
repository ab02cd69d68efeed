"""How sure a count of answers makes us: intervals of shares and of differences between paired answers. Pure.

A group of prompts is a sample of what users will ask. Twelve right of twelve does not say that the next is right; the
interval says how much is known.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4_000
CONFIDENCE = 0.95


def wilson(passed: int, total: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson score interval of a share, (0, 1) when nothing was counted (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, square = passed / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    low = 0.0 if passed == 0 else max(0.0, middle - half)
    high = 1.0 if passed == total else min(1.0, middle + half)
    return low, high


def loss_p_value(lost: int, won: int) -> float:
    """Return how likely chance alone loses `lost` or more of the `lost + won` answers that changed (exact McNemar)."""
    changed = lost + won
    if changed == 0:
        return 1.0
    return float(sum(math.comb(changed, k) for k in range(lost, changed + 1)) / 2**changed)


def paired_drop(
    before: NDArray[np.bool_], after: NDArray[np.bool_], *, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Return by how much the share of good answers fell, and the interval of that: a paired bootstrap, seeded.

    `before` and `after` are of one length, one entry a prompt. Where no answer changed, resampling would claim
    certainty; then the interval is the exact one of "none of n": 0 +- (1 - (1 - confidence)^(1/n)).
    """
    count = before.size
    if count == 0:
        return 0.0, -1.0, 1.0
    changes = before.astype(np.int8) - after.astype(np.int8)
    drop = float(changes.mean())
    unseen = 1 - (1 - confidence) ** (1 / count)
    if not changes.any():
        return 0.0, -unseen, unseen
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    means = changes[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    if changes.min() == changes.max():
        # All changed alike: resampling knows no other outcome.
        low, high = drop - unseen, drop + unseen
    return drop, max(-1.0, float(low)), min(1.0, float(high))
