"""How far a variant is from the reference: KL divergence in nats and agreement of top tokens, from both logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drupelet.core.errors import BadInput
from drupelet.engine.logits import Logits
from drupelet.wire.manifest import Quality

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""At which the distribution of divergences is kept for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A comparison: the manifest's numbers, the shape of the distribution, and where it is worst."""

    quality: Quality
    quantiles: tuple[float, ...]
    """KL in nats at each of `QUANTILES`."""
    worst_sequence: int
    """The sequence whose mean divergence is the largest."""
    worst_mean: float
    perplexity: float
    """Of the variant on the sequences: reported, and decides nothing."""


def divergence(reference: NDArray[np.float32], variant: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(reference || variant) in nats at each position, from logits of shape (positions, vocabulary)."""
    p, q = log_softmax(reference), log_softmax(variant)
    # Rounding may leave a divergence of two equal distributions at -1e-17.
    distance: NDArray[np.float64] = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return distance


def compare(reference: Logits, variant: Logits, sequences: tuple[tuple[int, ...], ...]) -> Distance:
    """Return how far `variant` is from `reference`, read sequence by sequence. Raises `BadInput` if they do not match.

    A logit that is no number anywhere is an infinite divergence, which no budget allows.
    """
    if (reference.lengths, reference.vocab) != (variant.lengths, variant.vocab):
        raise BadInput("the logits are of different sequences or vocabularies", where=str(variant.path))
    distances: list[NDArray[np.float64]] = []
    same, surprise, predicted = 0, 0.0, 0
    for sequence, ours, theirs in zip(sequences, reference, variant, strict=True):
        if np.isfinite(theirs).all():
            distances.append(divergence(ours, theirs))
        else:
            distances.append(np.full(len(sequence), _BEYOND))
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        said = log_softmax(theirs[:-1])[np.arange(len(sequence) - 1), np.array(sequence[1:], dtype=np.int64)]
        surprise, predicted = surprise - float(said.sum()), predicted + said.size
    every = np.concatenate(distances)
    means = [float(one.mean()) for one in distances]
    worst = int(np.argmax(means))
    return Distance(
        quality=Quality(
            kl_mean=float(every.mean()),
            kl_p99=float(np.quantile(every, 0.99)),
            kl_max=float(every.max()),
            top1_agreement=same / every.size,
            tokens=int(every.size),
        ),
        quantiles=tuple(float(value) for value in np.quantile(every, QUANTILES)),
        worst_sequence=worst,
        worst_mean=means[worst],
        perplexity=float(np.exp(min(surprise / max(predicted, 1), _LOG_PERPLEXITY_MAX))),
    )


_BEYOND = 1e6
"""Nats that stand for a distribution that is none: a message cannot carry infinity."""
_LOG_PERPLEXITY_MAX = 50.0


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return log probabilities of each row, in double precision."""
    values = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        shifted = np.subtract(values, values.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = np.subtract(shifted, np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    return result
