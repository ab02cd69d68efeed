"""GGUF by llama.cpp's own tools: every architecture they know, K- and I-quants, importance matrices.

The way of a variant: the checkpoint becomes f16 once, which is also the reference that variants are compared with; the
importance matrix is computed once, by that f16 model on the calibration text; each variant is quantized from the f16.
What is made once lies in a work folder, named by what it was made from, with a note of its digest: the next build of
the same checkpoint finds it, and a file that is not what its note says is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.core.names import Digest
from drupelet.durable.port import CHUNK_BYTES, Disk, DiskBroken, hash_file
from drupelet.forge.calibration import CalibrationText
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.formats.kinds import KINDS, size_bytes
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.ledger import Step
from drupelet.forge.toolchain.port import Toolchain
from drupelet.wire.fields import DigestText

_NOTE_BYTES_MAX = 1 << 10


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a file of the work folder."""

    digest: DigestText
    began_at_ms: int
    ended_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A file of the work folder, its digest and the steps that led to it."""

    path: Path
    digest: Digest
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolchainGguf:
    """Implements `Format`. `work` keeps what is made once; it may be removed at any time."""

    tools: Toolchain
    work: Path
    now_ms: Callable[[], int]
    calibration: CalibrationText | None = None
    name: str = "gguf"

    @property
    def quantizations(self) -> tuple[str, ...]:
        """All that the tools make."""
        return tuple(KINDS)

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Convert, or quantize what was converted. Raises `ToolFailed`, and `BadInput` for what needs a calibration."""
        kind = KINDS.get(quantization)
        if kind is None:
            raise BadInput(f"unknown quantization {quantization!r}", fix=f"use one of {', '.join(KINDS)}")
        if kind.needs_importance and self.calibration is None:
            raise BadInput(f"{quantization} needs an importance matrix", fix="give the recipe a [calibration] text")
        whole = quantization if kind.whole else checkpoint.quantization
        source = self._converted(checkpoint, whole, model_name, disk, progress)
        if kind.whole:
            _same_bytes(source.path, out, disk)
            size = disk.size(out)
            return Artifact(
                path=out, digest=source.digest, size_bytes=size, quantization=quantization, steps=source.steps
            )
        matrix = self._matrix(source, disk, progress)
        return self._quantized(source, matrix, out, quantization, checkpoint.parameters, disk, progress)

    def _converted(self, checkpoint: Checkpoint, kind: str, model_name: str, disk: Disk, progress: Progress) -> _Made:
        if checkpoint.model_file is not None:
            if kind != checkpoint.quantization:
                raise checkpoint.unknown or BadInput("a GGUF is not converted again", where=str(checkpoint.model_file))
            return _Made(path=checkpoint.model_file, digest=checkpoint.digest, steps=())
        size = size_bytes(checkpoint.parameters, kind)

        def make(part: Path) -> None:
            progress(f"converting to {kind}", 0, size)
            self.tools.convert(
                checkpoint.files,
                part,
                kind=kind,
                model_name=model_name,
                percent=lambda done: progress(f"converting to {kind}", size * done // 100, size),
            )

        return self._once(
            make,
            f"{kind}.gguf",
            disk,
            name="convert",
            tool=self.tools.version,
            tool_digest=self.tools.converter_digest,
            parameters={"kind": kind, "model_name": model_name},
            inputs={"checkpoint": checkpoint.digest},
        )

    def _matrix(self, source: _Made, disk: Disk, progress: Progress) -> _Made | None:
        text = self.calibration
        if text is None:
            return None

        def make(part: Path) -> None:
            progress("computing the importance matrix", 0, 1)
            written = self.work / f"calibration-{text.digest.hex[:16]}.txt"
            disk.replace(written, text.data)
            try:
                self.tools.importance(
                    source.path, written, part, context_tokens=text.context_tokens, chunks=text.chunks
                )
            finally:
                disk.remove(written)

        return self._once(
            make,
            "importance.gguf",
            disk,
            name="importance matrix",
            tool=self.tools.version,
            tool_digest=self.tools.program_digest("llama-imatrix"),
            parameters={"context_tokens": str(text.context_tokens), "chunks": str(text.chunks)},
            inputs={"calibration": text.digest, source.path.name: source.digest},
        )

    def _quantized(
        self,
        source: _Made,
        matrix: _Made | None,
        out: Path,
        quantization: str,
        parameters: int,
        disk: Disk,
        progress: Progress,
    ) -> Artifact:
        began, size = self.now_ms(), size_bytes(parameters, quantization)
        part = out.with_name(out.name + ".part")
        _fresh(part, disk)
        progress(f"quantizing to {quantization}", 0, size)
        try:
            notes = self.tools.quantize(
                source.path,
                part,
                quantization=quantization,
                importance=None if matrix is None else matrix.path,
                percent=lambda done: progress(f"quantizing to {quantization}", size * done // 100, size),
            )
        except BaseException:
            disk.remove(part)
            raise
        digest, size = hash_file(disk, part)
        disk.publish(part, out)
        progress(f"quantizing to {quantization}", size, size)
        step = Step(
            name="quantize",
            tool=self.tools.version,
            tool_digest=self.tools.program_digest("llama-quantize"),
            parameters={"quantization": quantization},
            inputs={one.path.name: one.digest for one in (source, matrix) if one is not None},
            outputs={out.name: digest},
            began_at_ms=began,
            ended_at_ms=self.now_ms(),
        )
        before = source.steps if matrix is None else (*source.steps, *matrix.steps)
        return Artifact(
            path=out,
            digest=digest,
            size_bytes=size,
            quantization=quantization,
            steps=(*before, step),
            notes=notes,
        )

    def _once(
        self,
        make: Callable[[Path], None],
        suffix: str,
        disk: Disk,
        *,
        name: str,
        tool: str,
        tool_digest: Digest,
        parameters: Mapping[str, str],
        inputs: Mapping[str, Digest],
    ) -> _Made:
        """Return what `make` writes, from the work folder if the very same was made before."""
        decides = [name, tool_digest.text, dict(parameters), {key: value.text for key, value in inputs.items()}]
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        path, note = self.work / f"{key}-{suffix}", self.work / f"{key}.json"
        known = _read_note(note, disk)
        if known is None or not disk.exists(path) or hash_file(disk, path)[0].text != known.digest:
            began = self.now_ms()
            part = path.with_name(path.name + ".part")
            _fresh(part, disk)
            try:
                make(part)
            except BaseException:
                disk.remove(part)
                raise
            found, _ = hash_file(disk, part)
            disk.publish(part, path)
            known = _Note(digest=found.text, began_at_ms=began, ended_at_ms=self.now_ms())
            disk.replace(note, msgspec.json.encode(known))
        step = Step(
            name=name,
            tool=tool,
            tool_digest=tool_digest,
            parameters=parameters,
            inputs=inputs,
            outputs={path.name: Digest.parse(known.digest)},
            began_at_ms=known.began_at_ms,
            ended_at_ms=known.ended_at_ms,
        )
        return _Made(path=path, digest=Digest.parse(known.digest), steps=(step,))


def _same_bytes(source: Path, out: Path, disk: Disk) -> None:
    """Give `source` a second name, or copy it where `out` lies on another disk."""
    try:
        disk.link(source, out)
    except DiskBroken as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EXDEV:
            raise
        part = out.with_name(out.name + ".part")
        _fresh(part, disk)
        with disk.part(part) as file:
            offset = 0
            while data := disk.read_at(source, offset, CHUNK_BYTES):
                file.write(data)
                offset += len(data)
        disk.publish(part, out)


def _fresh(part: Path, disk: Disk) -> None:
    """Make the folder of `part` and remove what an interrupted run left there."""
    disk.part(part).close()
    disk.remove(part)


def _read_note(path: Path, disk: Disk) -> _Note | None:
    """Return the note of a file that was made before, or None if there is none that can be read."""
    try:
        return msgspec.json.decode(disk.read(path, bytes_max=_NOTE_BYTES_MAX), type=_Note)
    except (DrupeletError, msgspec.MsgspecError):
        return None
