"""From a checkpoint to its variants, each published whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.names import VariantName, variant_name
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint, open_checkpoint
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.kinds import size_bytes
from drupelet.forge.formats.port import Artifact, Format, Progress
from drupelet.forge.formats.tooled import ToolFormat
from drupelet.forge.imports import importer_of

CONVERTER = "drupelet embedded"
"""Named in the manifest's provenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A variant to make."""

    name: VariantName
    quantization: str
    file_format: str = "gguf"
    file: str = ""
    """Where it comes from instead of the checkpoint: a GGUF, or another checkpoint's folder."""

    def is_reference(self, kind: str = "f16") -> bool:
        """Whether it can be what the others are compared with: made from the checkpoint, in its reference's kind."""
        return self.quantization == kind and self.file_format == "gguf" and not self.file

    @classmethod
    def reference(cls, checkpoint: Checkpoint) -> Wanted:
        """Return the variant that others are compared with, for recipes that do not ship it."""
        kind = checkpoint.quantization
        return cls(name=variant_name(f"reference-{kind}"), quantization=kind)


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
    files: Path | None = None,
) -> tuple[Converted, ...]:
    """Write each wanted variant into `folder` as `<name>.<format>`. Same input, same bytes.

    `files` is the folder that variants' own files are relative to. Raises `CheckpointBad` (also for a NaN met while
    reading), `ModelFileBad` for a file that is no sound GGUF, the disk's errors, `BadInput` for unknown formats.
    """
    needed = 0
    for one in wanted:
        writer = formats.get(one.file_format)
        if isinstance(writer, ToolFormat) and not one.file:
            writer.require()
        # Known before hours of work, not after; a small model's embedding weighs more, hence the tenth.
        needed += size_bytes(checkpoint.parameters, one.quantization) * 11 // 10
        if (given := _file_of(one, checkpoint, files)) is not None and given.is_file():
            needed += given.stat().st_size
    free = disk.free_bytes(folder)
    if needed > free:
        what = f"the variants take about {needed >> 20} MiB and {free >> 20} MiB are free"
        raise CheckpointBad(what, where=str(folder), fix="free space or choose another folder")
    made: list[Converted] = []
    for one in wanted:
        begun = time.monotonic()
        given, out = _file_of(one, checkpoint, files), folder / f"{one.name}.{one.file_format}"
        if given is not None and not given.is_dir():
            take = importer_of(one.file_format)
            artifact = take(given, out, quantization=one.quantization, disk=disk, progress=progress)
        else:
            artifact = formats[one.file_format].write(
                checkpoint if given is None else open_checkpoint(given),
                out,
                quantization=one.quantization,
                model_name=model_name,
                disk=disk,
                progress=progress,
            )
        made.append(Converted(wanted=one, artifact=artifact, duration_ms=(time.monotonic() - begun) * 1000))
    return tuple(made)


def _file_of(wanted: Wanted, checkpoint: Checkpoint, files: Path | None) -> Path | None:
    """Return where a variant is taken from, if not from the checkpoint."""
    if wanted.file:
        return (files or Path.cwd()) / wanted.file
    same = checkpoint.model_file is not None and wanted.quantization == checkpoint.quantization
    return checkpoint.model_file if same and wanted.file_format == "gguf" else None
