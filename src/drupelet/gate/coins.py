"""The coin that decides which release serves a pair's first block.

The proof in `evalue` rests on this alone: the coin is fair, nothing else uses it, and it is on record before the block
begins. `flip` takes any source of bits; `coin` derives the same face again after a restart from a seed drawn once per
rollout (32 random bytes, journalled), so neither a crash nor a retry can draw until it likes the answer.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

from .errors import GateError
from .pairs import Arm

SEED_BYTES_MIN = 16


class Bits(Protocol):
    """A source of fair bits, e.g. `random.Random` or `random.SystemRandom`."""

    def getrandbits(self, k: int, /) -> int:
        """Return k fair bits as a number."""
        ...


def flip(bits: Bits) -> Arm:
    """Return the arm that serves first, from one fair bit."""
    return Arm.NEW if bits.getrandbits(1) else Arm.OLD


def coin(seed: bytes, *, device: str, index: int) -> Arm:
    """Return the arm that serves first in pair `index` of `device`; always the same for the same seed."""
    if len(seed) < SEED_BYTES_MIN:
        raise GateError(
            f"a coin's seed has {len(seed)} bytes, at least {SEED_BYTES_MIN} are needed",
            where="coin",
            fix="draw 32 random bytes once per rollout and journal them",
        )
    digest = hmac.digest(seed, f"{index}:{device}".encode(), hashlib.sha256)
    return Arm.NEW if digest[0] & 1 else Arm.OLD
