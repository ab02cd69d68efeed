"""A format that other people's tools write, in an environment of their own.

One way for all of them: stage the checkpoint, run the format's script there, take the one file it made or put its
folder into a bundle, publish. The tools get no hub, a home of their own, none of this process's secrets, and one seed
for hashing, so that two runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable.port import Disk
from drupelet.forge.bundle import write_bundle
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.formats.port import Artifact, Progress
from drupelet.forge.formats.staging import stage
from drupelet.forge.ledger import Step
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.venvs import ToolFailed, ToolVenv, cache_folder

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""All that a tool sees of this process's variables: no secret of a CI job is among them."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """Implements `Format`."""

    name: str
    quantizations: tuple[str, ...]
    venv: ToolVenv
    script: str
    single: str = ""
    """The one file that the script leaves; empty where it leaves a folder."""
    parts: bool = False
    """Whether its runtime hands the chat template lists of parts instead of texts."""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    @property
    def tool(self) -> str:
        """Who makes it, for people: the environment with the versions that were asked for."""
        return f"{self.name} by {', '.join(asked.replace('==', ' ') for asked in self.venv.requirements)}"

    @property
    def tool_digest(self) -> Digest:
        """Of the script and of every version it runs with."""
        hashing = hashlib.sha256(script(self.script).read_bytes())
        for pin in sorted((*self.venv.requirements, *self.venv.pins)):
            hashing.update(f"{pin}\n".encode())
        return Digest.of_hex(hashing.hexdigest())

    def require(self) -> None:
        """Raise `ToolMissing` unless the tools are installed: asked before anything is made."""
        self.venv.python(cache_folder())

    def write(
        self, checkpoint: Checkpoint, out: Path, *, quantization: str, model_name: str, disk: Disk, progress: Progress
    ) -> Artifact:
        """Write it. Raises `ToolMissing` where the tools are not installed, `ToolFailed` with their last words."""
        del model_name  # none of these files says what it is called
        if quantization not in self.quantizations:
            fix = f"use one of {', '.join(self.quantizations)}"
            raise BadInput(f"unknown quantization {quantization!r} of {self.name}", fix=fix)
        python = self.venv.python(cache_folder())
        work = out.with_name(f".{out.name}.making")
        shutil.rmtree(work, ignore_errors=True)  # what an interrupted run left
        log = out.with_name(f"{out.name}.log")
        began = self.now_ms()
        try:
            staged = stage(checkpoint, work / "checkpoint", parts=self.parts)
            progress(f"{quantization} by the tools for {self.name}", 0, 1)
            run(
                [python, "-s", script(self.script), staged, work / "made", quantization],
                log=log,
                doing=f"making {self.name} {quantization}",
                environment=environment(work / "home"),
                cwd=work,
            )
            if not (work / "made" / self.single).exists():
                raise ToolFailed(f"the tools for {self.name} made nothing", where=str(log), fix="see the log")
            artifact = self._publish(work / "made", out, quantization=quantization, disk=disk, progress=progress)
            log.unlink()
            step = Step(
                name="convert",
                tool=self.tool,
                tool_digest=self.tool_digest,
                parameters={"file_format": self.name, "quantization": quantization},
                inputs={"checkpoint": checkpoint.digest},
                outputs={out.name: artifact.digest},
                began_at_ms=began,
                ended_at_ms=self.now_ms(),
            )
            return replace(artifact, steps=(step,))
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _publish(self, made: Path, out: Path, *, quantization: str, disk: Disk, progress: Progress) -> Artifact:
        total = sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) or 1
        part = out.with_name(f"{out.name}.part")
        disk.remove(part)
        hashing = hashlib.sha256()
        with disk.part(part) as file:

            def put(data: bytes) -> None:
                hashing.update(data)
                file.write(data)
                progress(f"{quantization} into one file", min(file.size, total), total)

            if self.single:
                _copy(made / self.single, put)
            else:
                write_bundle(made, put)
            size = file.size
        disk.publish(part, out)
        digest = Digest.of_hex(hashing.hexdigest())
        return Artifact(path=out, digest=digest, size_bytes=size, quantization=quantization)


def script(name: str) -> Path:
    """Return where a script for a tool environment lies."""
    return Path(str(resources.files("drupelet.forge.toolscripts") / name))


def environment(home: Path) -> dict[str, str]:
    """Return the variables that a tool gets: few, a home of its own, no hub, the same hashes every time."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _copy(path: Path, put: Callable[[bytes], None]) -> None:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            put(piece)
