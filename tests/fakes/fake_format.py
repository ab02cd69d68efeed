"""A format that is made up: a bundle with an f16 GGUF and a note in it, run by llama.cpp after it is unpacked.

It stands for formats that are folders, where their tools are not installed: same ports, same bundle, no torch.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.core.states import ExitReason
from drupelet.durable import PosixDisk
from drupelet.durable.port import Disk, hash_file
from drupelet.engine.logits import Logits
from drupelet.engine.spec import Exit, StartFailed
from drupelet.forge.bundle import BundleBad, unpack, write_bundle
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.formats.gguf import GgufFormat
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.runners.llamacpp import LlamaCppRunner, LlamaSession
from drupelet.forge.runners.port import RunSpec

NAME = "fake"


class FakeFormat:
    """Implements `Format`."""

    name = NAME
    quantizations = ("f16",)

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Write the bundle."""
        if quantization not in self.quantizations:
            raise BadInput(f"unknown quantization {quantization!r}", fix=f"use one of {', '.join(self.quantizations)}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            GgufFormat().write(
                checkpoint, folder / "model.gguf", quantization="f16", model_name=model_name, disk=disk,
                progress=progress,
            )  # fmt: skip
            (folder / "note.txt").write_text("made up\n")
            part, hashing = out.with_name(f"{out.name}.part"), hashlib.sha256()
            disk.remove(part)
            with disk.part(part) as file:

                def put(data: bytes) -> None:
                    hashing.update(data)
                    file.write(data)

                write_bundle(folder, put)
                size = file.size
            disk.publish(part, out)
        digest = Digest.of_hex(hashing.hexdigest())
        return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization)


class FakeSession(LlamaSession):
    """A session that removes what was unpacked for it."""

    unpacked: Path

    def close(self) -> None:
        """Stop the child, then remove its folder."""
        super().close()
        shutil.rmtree(self.unpacked, ignore_errors=True)


class FakeRunner:
    """Implements `Runner`."""

    file_format = NAME
    tool = LlamaCppRunner().tool

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> LlamaSession:
        """Unpack and start."""
        if spec.digest is not None and hash_file(PosixDisk(), spec.model)[0] != spec.digest:
            raise _failed(spec, "the file is not the one that was asked for")
        folder = Path(tempfile.mkdtemp(prefix=".running-", dir=spec.model.parent))
        try:
            unpack(spec.model, folder)
            inner = RunSpec(model=folder / "model.gguf", alias=spec.alias, context_tokens=spec.context_tokens)
            session = LlamaCppRunner().start(inner, runtime_folder=runtime_folder)
        except BundleBad as error:
            shutil.rmtree(folder)
            raise _failed(spec, error.what) from error
        except BaseException:
            shutil.rmtree(folder)
            raise
        session.__class__ = FakeSession
        session.unpacked = folder  # type: ignore[attr-defined]
        return session

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits:
        """Unpack and compute."""
        with tempfile.TemporaryDirectory() as name:
            unpack(spec.model, Path(name))
            inner = RunSpec(model=Path(name) / "model.gguf", alias=spec.alias, context_tokens=spec.context_tokens)
            return LlamaCppRunner().logits(inner, sequences, out)


def _failed(spec: RunSpec, words: str) -> StartFailed:
    return StartFailed(Exit(reason=ExitReason.LOAD_FAILED, words=words), where=str(spec.model))
