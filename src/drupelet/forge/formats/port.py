"""What a file format must do for the forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drupelet.core.names import Digest
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.ledger import Step

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done and bytes in all, of one variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One finished file."""

    path: Path
    digest: Digest
    size_bytes: int
    quantization: str
    steps: tuple[Step, ...] = ()
    """How it was made, where tools of other people made it: for the ledger."""
    base: Artifact | None = None
    """Of an adapter: the file that it is applied to."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, such as tensors that had to stay in another type."""


class Format(Protocol):
    """Writes a checkpoint as one file in one quantization. Same checkpoint, same settings: same bytes."""

    @property
    def name(self) -> str:
        """As the manifest's `file_format` writes it."""
        ...

    @property
    def quantizations(self) -> tuple[str, ...]:
        """What `write` can make, the reference first."""
        ...

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Write `out` and publish it in one step: it is whole or not there. Raises the room's and the disk's errors."""
        ...
