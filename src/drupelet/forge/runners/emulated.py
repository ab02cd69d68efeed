"""GGUF files in a board's own `llama-server`, run by qemu on this machine: for correctness, never for speed.

The server is the one that the runtime's image ships, compiled for the board's processor. So what its instructions make
of the weights (dot products of 8-bit numbers, half precision) is seen before any board has the release.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import BadInput, NotFound
from drupelet.engine.logits import Logits
from drupelet.engine.spec import ChildSpec
from drupelet.forge.runners.llamacpp import LlamaSession
from drupelet.forge.runners.port import RunSpec

PROGRAMS = ("qemu-aarch64-static", "qemu-aarch64")
PROCESSORS = ("cortex-a76", "cortex-a72", "cortex-a53")
"""Of a Pi 5, a Pi 4 and a Pi 3."""
LIBRARIES = Path("/usr/aarch64-linux-gnu")
"""Where Debian's package libc6-arm64-cross and its neighbours lie."""
START_MS_MAX = 600_000
_ELF_AARCH64 = (b"\x7fELF\x02", b"\xb7\x00")
"""64 bits, and the machine's number at byte 18 (elf(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedRunner:
    """Implements `Runner` for `gguf`, without logits."""

    file_format = "gguf"
    emulator: Path
    server: Path
    processor: str
    libraries: Path = LIBRARIES

    @classmethod
    def find(cls, server: Path, *, processor: str = PROCESSORS[0], libraries: Path = LIBRARIES) -> EmulatedRunner:
        """Return a runner for `server`. Raises `NotFound` for what is not there, `BadInput` for another program."""
        if processor not in PROCESSORS:
            raise BadInput(f"unknown processor {processor[:40]!r}", fix=f"use one of {', '.join(PROCESSORS)}")
        try:
            with server.open("rb") as file:
                head = file.read(20)
        except OSError as error:
            raise NotFound(f"the llama-server cannot be read: {error.strerror}", where=str(server)) from error
        if not head.startswith(_ELF_AARCH64[0]) or head[18:20] != _ELF_AARCH64[1]:
            fix = "build one: drupelet forge toolchain build llama-server-arm64"
            raise BadInput("not a program for aarch64", where=str(server), fix=fix)
        found = next((path for name in PROGRAMS if (path := shutil.which(name)) is not None), None)
        if found is None:
            raise NotFound("qemu is not installed", where=PROGRAMS[0], fix="apt-get install qemu-user-static (Debian)")
        return cls(emulator=Path(found), server=server.absolute(), processor=processor, libraries=libraries)

    @property
    def tool(self) -> str:
        """The emulator and the processor it plays."""
        return f"{self.emulator.name} -cpu {self.processor}"

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> LlamaSession:
        """Start the server under the emulator."""
        runtime_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        script = runtime_folder / "emulated"
        words = [str(self.emulator), "-cpu", self.processor, "-L", str(self.libraries), str(self.server)]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        script.chmod(0o700)
        child = ChildSpec(
            model=spec.model,
            alias=spec.alias,
            context_tokens=spec.context_tokens,
            threads=spec.threads,
            digest=spec.digest,
            adapters=spec.adapters,
            server=script,
            start_ms_max=START_MS_MAX,
        )
        return LlamaSession(child, runtime_folder)

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits | None:
        """None: the server gives none, and emulated ones would take hours."""
        del spec, sequences, out
        return None
