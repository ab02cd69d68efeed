"""Boards as data: memory, bandwidth, and where the numbers come from. Sizes in bytes, bandwidth in bytes a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 1 << 30
_GB = 10**9
SYSTEM_BYTES = GIB // 2
SYSTEM_SHARE = 0.18
"""What the system, the agent and the page cache keep: an 8 GB Pi 5 was seen to hold models of 6 to 6.5 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One profile."""

    name: str
    words: str
    memory_bytes: int
    bandwidth: float
    """Of the memory, as stated: its data rate times its width."""
    share_low: float
    """Of that bandwidth, what decoding gets in the worst and the best case that was reported."""
    share_high: float
    source: str
    calibrated: bool
    """Whether the shares come from tokens a second that somebody measured on this board."""
    formats: tuple[str, ...] = ("gguf", "onnx", "litert", "openvino")
    keeps_system: bool = True
    """Whether the system lives in this memory too; an accelerator has its own."""

    @property
    def usable_bytes(self) -> int:
        """What is left for a model."""
        if not self.keeps_system:
            return self.memory_bytes
        return int(self.memory_bytes * (1 - SYSTEM_SHARE)) - SYSTEM_BYTES


_PI4 = (
    "LPDDR4-3200, 32 bits: 12.8 GB/s stated (Raspberry Pi 4 product brief). The shares are a Pi 5's, lowered by a "
    "third, for the Cortex-A72 has no dot product instructions: nobody's measurement stands behind them"
)
_PI5 = (
    "LPDDR4X-4267, 32 bits: 17.1 GB/s stated (Raspberry Pi 5 product brief). The shares are from reported 4-bit "
    "llama.cpp speeds: 1B 9, 2B 7.8 to 9.3, 3B 4.6 to 4.9, 8B 2.2 tokens/s, at 4.9 bits a weight"
)
_HAILO = (
    "LPDDR4X on the board of the Hailo-10H, 8 GB: 17.1 GB/s stated. The share is from about 8 tokens/s reported for "
    "models of 1.5B in 4 bits"
)


def _pi(name: str, words: str, gib: int, bandwidth_gb: float, shares: tuple[float, float], source: str) -> Board:
    return Board(
        name=name,
        words=words,
        memory_bytes=gib * GIB,
        bandwidth=bandwidth_gb * _GB,
        share_low=shares[0],
        share_high=shares[1],
        source=source,
        calibrated=source is _PI5,
    )


_ALL = (
    *(_pi(f"pi4-{gib}gb", f"Raspberry Pi 4, {gib} GB", gib, 12.8, (0.26, 0.58), _PI4) for gib in (2, 4, 8)),
    *(_pi(f"pi5-{gib}gb", f"Raspberry Pi 5, {gib} GB", gib, 17.1, (0.39, 0.87), _PI5) for gib in (4, 8, 16)),
    Board(
        name="ai-hat-plus-2",
        words="AI HAT+ 2 (Hailo-10H) on a Pi 5",
        memory_bytes=8 * GIB,
        bandwidth=17.1 * _GB,
        share_low=0.35,
        share_high=0.55,
        source=_HAILO,
        calibrated=True,
        formats=("hef",),
        keeps_system=False,
    ),
)
BOARDS: Mapping[str, Board] = {board.name: board for board in _ALL}
"""Board name -> its profile."""
