"""Seeded blocks and pairs for the gate's tests."""

from __future__ import annotations

import random
from collections.abc import Iterable

from drupelet.gate import Arm, BlockStats, Canary, Pair

ROUND_S = 10.0


def block(values: Iterable[float], *, errors: int = 0) -> BlockStats:
    """A block whose answered requests took `values` seconds; errors come on top."""
    answered = tuple((value, 1) for value in values)
    return BlockStats(requests=len(answered) + errors, errors=errors, latency=answered)


def pair(device: str, index: int, new: BlockStats, old: BlockStats, *, hardware: str = "pi5-8gb") -> Pair:
    """A pair that closed with its round."""
    return Pair(device, index, Arm.NEW, new, old, complete_at_s=ROUND_S * (index + 1), hardware=hardware)


def rollout(
    seed: int,
    *,
    devices: int = 3,
    pairs: int = 8,
    slower: float = 1.0,
    new_errors: float = 0.0,
    requests: int = 10,
    noise: float = 0.2,
) -> list[Pair]:
    """A rollout on devices of different speed, with a drift from block to block that has nothing to do with the arm."""
    rng = random.Random(seed)
    out = []
    for index in range(pairs):
        for number in range(devices):
            drift = rng.gauss(0.0, 0.05)
            base = 0.2 * (1 + number)
            new, old = (
                [factor * base * rng.lognormvariate(drift, noise) for _ in range(requests)] for factor in (slower, 1.0)
            )
            failed = sum(rng.random() < new_errors for _ in range(requests))
            out.append(pair(f"device-{number}", index, block(new[failed:], errors=failed), block(old)))
    return out


def canaries(devices: int = 3, *, silent_s: float | None = 1.0) -> list[Canary]:
    """The stage's devices, all heard of `silent_s` ago."""
    return [Canary(f"device-{number}", hardware="pi5-8gb", silent_s=silent_s) for number in range(devices)]
