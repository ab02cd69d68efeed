"""From coins to blocks: which release a canary serves when. Pure.

A pair is two blocks of equal length, one of each release; the coin says which comes first. The coin of a pair is
journalled before its first block begins, and is drawn once: a restart in the middle of a pair gives the pair up and
draws the next, so that nothing can draw until it likes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from drupelet.wire.orders import Crossover
from drupelet.wire.telemetry import BlockLabel

Arm = Literal["new", "old"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair under way. Times are by the monotonic clock, of the moment a block was really routed.

    A slow network may hold the agent up: then a block is longer, but a pair is never over without both of them.
    """

    index: int
    new_first: bool
    began_ms: int
    turned_ms: int | None = None
    """When the second block began; None while the first runs, however long."""

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
        if self.turned_ms is None:
            return self.first if now_ms - self.began_ms < plan.block_ms else self.second
        return self.second if now_ms - self.turned_ms < plan.block_ms else None

    def routed(self, arm: Arm, now_ms: int, *, begun: bool) -> Pair:
        """Return the pair after one of its blocks was routed; `begun` says that the first one had been before."""
        if arm == self.second:
            return replace(self, turned_ms=now_ms)
        return self if begun else replace(self, began_ms=now_ms)

    def change_at_ms(self, plan: Crossover) -> int:
        """Return when the current block ends, by the same clock."""
        return (self.began_ms if self.turned_ms is None else self.turned_ms) + plan.block_ms

    def label(self, arm: Arm, serial: int) -> BlockLabel:
        """Return the label of one of its blocks."""
        return BlockLabel(serial=serial, pair=self.index, arm=arm, first=self.first)


def may_draw(drawn: int, plan: Crossover) -> bool:
    """Whether another pair may begin; beyond `pairs_max` the canary serves the committed release and waits."""
    return drawn < plan.pairs_max
