"""How a release behaves once it runs: what a simulated forge decides and nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traits:
    """How a release behaves once it runs."""

    answer: str = "we open at nine"
    loads: bool = True
    deaths_a_look: int = 0
    """How often its child dies between two looks at it."""
    memory_bytes: int = 50_000_000
    ttft_ms: float = 20.0
    slow: float = 1.0
    """How many times as long as another release it takes over users' requests."""
    errors: float = 0.0
    """The share of users' requests that it fails."""
