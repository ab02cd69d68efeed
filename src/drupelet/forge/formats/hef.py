"""HEF: compiled by Hailo's own tools for one family of chips, and only taken here. `forge/hef.py` reads it."""

from __future__ import annotations

from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.formats.port import Artifact, Progress


class HefFormat:
    """Implements `Format`, and makes nothing."""

    name = "hef"
    quantizations: tuple[str, ...] = ()

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Raise `BadInput`: the compiler is Hailo's, and its file is what a recipe gives."""
        del checkpoint, quantization, model_name, disk, progress
        raise BadInput(
            "a HEF is compiled by Hailo's tools, not made here", where=str(out), fix="give the variant a file"
        )


FORMAT = HefFormat()
