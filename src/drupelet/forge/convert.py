"""From a checkpoint to its variants, each published whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.names import VariantName, variant_name
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.kinds import size_bytes
from drupelet.forge.formats.port import Artifact, Format, Progress

CONVERTER = "drupelet embedded"
"""Named in the manifest's provenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A variant to make."""

    name: VariantName
    quantization: str
    file_format: str = "gguf"

    @property
    def is_reference(self) -> bool:
        """Whether it can be what the others are compared with."""
        return self.quantization == "f16" and self.file_format == "gguf"

    @classmethod
    def reference(cls) -> Wanted:
        """Return the f16 variant that others are compared with, for recipes that do not ship it."""
        return cls(name=variant_name("reference-f16"), quantization="f16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A variant that was made, and how long it took in milliseconds."""

    wanted: Wanted
    artifact: Artifact
    duration_ms: float


def convert(
    checkpoint: Checkpoint,
    wanted: Sequence[Wanted],
    folder: Path,
    *,
    model_name: str,
    disk: Disk,
    progress: Progress = lambda _doing, _done, _total: None,
    formats: Mapping[str, Format] = FORMATS,
) -> tuple[Converted, ...]:
    """Write each wanted variant into `folder` as `<name>.<format>`. Same input, same bytes.

    Raises `CheckpointBad` (also for a NaN met while reading), the disk's errors, `BadInput` for unknown formats.
    """
    needed = 0
    for one in wanted:
        # Known before hours of work, not after; a small model's embedding weighs more, hence the tenth.
        needed += size_bytes(checkpoint.parameters, one.quantization) * 11 // 10
    free = disk.free_bytes(folder)
    if needed > free:
        what = f"the variants take about {needed >> 20} MiB and {free >> 20} MiB are free"
        raise CheckpointBad(what, where=str(folder), fix="free space or choose another folder")
    made: list[Converted] = []
    for one in wanted:
        begun = time.monotonic()
        artifact = formats[one.file_format].write(
            checkpoint,
            folder / f"{one.name}.{one.file_format}",
            quantization=one.quantization,
            model_name=model_name,
            disk=disk,
            progress=progress,
        )
        made.append(Converted(wanted=one, artifact=artifact, duration_ms=(time.monotonic() - begun) * 1000))
    return tuple(made)
