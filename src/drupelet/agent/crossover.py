"""From coins to blocks: which release a canary serves when. Pure.

A pair is two blocks of equal length, one of each release; the coin says which comes first. The coin of a pair is
journalled before its first block begins, and is drawn once: a restart in the middle of a pair gives the pair up and
draws the next, so that nothing can draw until it likes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from drupelet.wire.orders import Crossover
from drupelet.wire.telemetry import BlockLabel

Arm = Literal["new", "old"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair under way. `began_ms` is by the monotonic clock."""

    index: int
    new_first: bool
    began_ms: int

    @property
    def first(self) -> Arm:
        """The release that the coin put first."""
        return "new" if self.new_first else "old"

    @property
    def second(self) -> Arm:
        """The other one."""
        return "old" if self.new_first else "new"

    def arm_at(self, now_ms: int, plan: Crossover) -> Arm | None:
        """Return the release to serve now, or None once the pair is over."""
        elapsed = now_ms - self.began_ms
        if elapsed >= 2 * plan.block_ms:
            return None
        return self.first if elapsed < plan.block_ms else self.second

    def change_at_ms(self, now_ms: int, plan: Crossover) -> int:
        """Return when the current block ends, by the same clock."""
        middle = self.began_ms + plan.block_ms
        return middle if now_ms < middle else middle + plan.block_ms

    def label(self, arm: Arm, serial: int) -> BlockLabel:
        """Return the label of one of its blocks."""
        return BlockLabel(serial=serial, pair=self.index, arm=arm, first=self.first)


def may_draw(drawn: int, plan: Crossover) -> bool:
    """Whether another pair may begin; beyond `pairs_max` the canary serves the committed release and waits."""
    return drawn < plan.pairs_max
