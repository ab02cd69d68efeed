"""Evidence from a randomised crossover: an e-value that only the coins can move.

A device serves both releases in a pair of adjacent blocks; a fair coin, drawn for this purpose alone, decides which
release goes first. Let d be the pair's score, new minus old. If the release changes nothing (the *sharp null*), the
other face of the coin would have given -d exactly, whatever the load, the heat, the time of day or the dependence
between requests: given |d| and everything before, d is +|d| or -|d| with probability one half each. Hence

    E[ exp(b d) / cosh(b d) ] = 1    for every bet b that depends on |d| and on the past only,

and the running product over pairs and devices is a martingale that starts at 1. By Ville's inequality it ever reaches
1/alpha with probability at most alpha, at *any* moment and for any dependence within or between devices, because the
assignment is what is random (Koning, arXiv 2310.01153; Ramdas et al., arXiv 2210.01948). A mean over several bets is a
martingale too, so no bet needs to be guessed right.

One factor is 2 / (1 + exp(-2 b d)): it never exceeds 2, so evidence of 2,000 needs at least 11 pairs, and one freak
block can add no more than any other.

The bet is b = lambda / s with the scale s built from unsigned scores: the device's earlier ones and this one, drawn
towards the fleet's (`DEVICE_PRIOR_PAIRS`). That makes the evidence free of units. As s = a + c|d| with a, c >= 0 known
beforehand, d/s rises with d, so the same product tests any composite null "worse by at least the margin": shift the
scores, score' = margin - d, and every true effect beyond the margin only lowers it.

The *weak null* (no harm on average, though single blocks may change) bets 1 + lambda clip(d / c, -1, 1) with c from
earlier pairs only: its mean is at most 1 when the clipped score has no positive mean given the past. It is slower.

Order matters only in that scales look backwards; the caller hands pairs in an order that later pairs never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEVICE_PRIOR_PAIRS = 4.0
"""How many pairs' worth of the fleet's scale a device's own scale starts from."""

SHARP_BETS: tuple[tuple[float, float], ...] = ((0.25, 0.25), (0.75, 0.25), (2.5, 0.5))
"""(lambda, weight): faint, middling and plain effects. Plain ones carry half, so that twelve clear pairs suffice."""

WEAK_BETS: tuple[tuple[float, float], ...] = ((0.1, 0.25), (0.4, 0.25), (0.9, 0.5))
"""(lambda, weight), lambda below 1 so that no factor can be 0."""


class Null(Enum):
    """What is assumed when the release does no harm."""

    SHARP = "sharp"
    """It changes nothing at all."""
    WEAK = "weak"
    """It may change single blocks, but does no harm on average."""


@dataclass(frozen=True, slots=True)
class Score:
    """One usable pair: whose it is, and how much more (positive is worse) the new release scored than the old."""

    device: str
    value: float


def log_evidence(scores: Sequence[Score], shifted: Floats, *, null: Null = Null.SHARP) -> Floats:
    """Return the log of the e-value after each pair.

    `shifted` has one row per pair, in the order of `scores`, and one column per hypothesis: the score that the column
    bets to be positive (`d` itself for harm, `margin - d` for non-inferiority). The result has the same shape; row k is
    the evidence once k + 1 pairs are in. No pairs give an empty array: evidence 1 is then the caller's to say.
    """
    if shifted.shape[0] == 0:
        return np.zeros_like(shifted)
    bets = SHARP_BETS if null is Null.SHARP else WEAK_BETS
    size = np.abs(shifted)
    scale = _scale([score.device for score in scores], size, own=null is Null.SHARP)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(scale > 0.0, shifted / scale, 0.0)
    paths = [np.log(weight) + np.cumsum(_log_factor(ratio, bet, null), axis=0) for bet, weight in bets]
    return np.asarray(np.logaddexp.reduce(np.stack(paths), axis=0), dtype=np.float64)


def _log_factor(ratio: Floats, bet: float, null: Null) -> Floats:
    if null is Null.SHARP:
        return np.asarray(np.log(2.0) - np.logaddexp(0.0, -2.0 * bet * ratio), dtype=np.float64)
    return np.asarray(np.log1p(bet * np.clip(ratio, -1.0, 1.0)), dtype=np.float64)


def _scale(devices: Sequence[str], size: Floats, *, own: bool) -> Floats:
    """Return each pair's scale: the mean unsigned score of its device so far, drawn towards the whole fleet's.

    `own` counts this pair's |d| in; without it the scale is known before the pair begins, and the very first is 0.
    """
    count = np.arange(1, size.shape[0] + 1, dtype=np.float64)[:, None]
    fleet_sum = np.cumsum(size, axis=0)
    if not own:
        count, fleet_sum = count - 1.0, fleet_sum - size
    fleet = fleet_sum / np.maximum(count, 1.0)
    scale = np.empty_like(size)
    for device in dict.fromkeys(devices):
        rows = np.array([name == device for name in devices])
        held = np.arange(1, int(rows.sum()) + 1, dtype=np.float64)[:, None]
        device_sum = np.cumsum(size[rows], axis=0)
        if not own:
            held, device_sum = held - 1.0, device_sum - size[rows]
        scale[rows] = (device_sum + DEVICE_PRIOR_PAIRS * fleet[rows]) / (held + DEVICE_PRIOR_PAIRS)
    return scale
