"""What the forge did, step by step: the ground for provenance.

Whatever turns inputs into outputs records a `Step`: which tool, which version of it, with which parameters, from which
digests to which. Nothing here is measured or judged; a step that is not recorded did not happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from drupelet.core.names import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: `name` such as `convert` or `evaluate`, times in milliseconds since 1970."""

    name: str
    tool: str
    """Name and version, such as `drupelet embedded 0.1`."""
    tool_digest: Digest | None = None
    """Of the tool's program, where it is a program."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Digest] = field(default_factory=dict)
    outputs: Mapping[str, Digest] = field(default_factory=dict)
    began_at_ms: int
    ended_at_ms: int


class Ledger:
    """The steps of one build, in order."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def record(self, step: Step) -> None:
        """Add a step."""
        self._steps.append(step)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps so far."""
        return tuple(self._steps)
