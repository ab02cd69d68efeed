"""`llama-server` for devices: compiled for a board's architecture, once for each level of its CPUs.

The levels are those of `engine/levels.py`, which chooses among them on the device. Only ggml's CPU code differs between
them, so they are compiled one after the other in one tree: the second takes a fraction of the first. The programs need
the distribution's C and C++ libraries, of the age of the machine's that compiles or newer, and nothing else. A build is
named by the digest of source, settings and compiler, may be interrupted at any moment, and gets its name only when it
is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.engine.levels import PREFIX
from drupelet.forge.toolchain.llamacpp import SOURCE
from drupelet.forge.toolchain.native import Steps
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.source import Source
from drupelet.forge.toolchain.venvs import Progress, ToolMissing

PROGRAM = "llama-server"
SETTINGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",  # the same instructions whatever machine compiles
    "-DGGML_OPENMP=OFF",  # llama.cpp's own threads: no libgomp
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",  # it listens on a Unix socket and never opens a connection
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_COMMIT=release",  # else the commit of whatever repository the cache lies in
)
_X86_FEATURES = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
_STEP = re.compile(r"^\[(\d+)/(\d+)\] (?:Building|Linking) \S+ (?:static library |executable |object )?(.*)$")


def _x86(on: bool) -> tuple[str, ...]:
    return tuple(f"-DGGML_{feature}={'ON' if on else 'OFF'}" for feature in _X86_FEATURES)


@dataclass(frozen=True, slots=True)
class Target:
    """An architecture under Debian's name: what compiles for it, and its levels with what each sets."""

    arch: str
    machine: str
    triplet: str
    levels: Mapping[str, tuple[str, ...]]

    def key(self, source_sha256: str, compiler: str) -> str:
        """Return the digest, in hex, of all that decides what the programs are."""
        levels = {name: list(settings) for name, settings in self.levels.items()}
        decides = [source_sha256, self.triplet, SETTINGS, levels, compiler]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


TARGETS = {
    target.arch: target
    for target in (
        Target(
            "arm64",
            "aarch64",
            "aarch64-linux-gnu",
            {
                "armv8-a": ("-DGGML_CPU_ARM_ARCH=armv8-a",),
                "armv8.2-a+dotprod+fp16": ("-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16",),
            },
        ),
        Target("amd64", "x86_64", "x86_64-linux-gnu", {"x86-64": _x86(False), "x86-64-v3": _x86(True)}),
    )
}


def target_of(arch: str) -> Target:
    """Return the target of Debian's architecture `arch`, or raise `BadInput`."""
    if arch not in TARGETS:
        raise BadInput(f"there is no runtime for {arch[:40]!r}", fix=f"use {' or '.join(TARGETS)}")
    return TARGETS[arch]


@dataclass(frozen=True, slots=True)
class Servers:
    """The builds for one architecture, as a tool that is built once into the cache."""

    target: Target
    source: Source = SOURCE
    archive: Path | None = None
    jobs: int = 0
    steps: Steps = lambda _doing, _done, _total: None

    @property
    def name(self) -> str:
        """As the command takes it: `llama-server-arm64`."""
        return f"{PROGRAM}-{self.target.arch}"

    @property
    def says(self) -> str:
        """What it is for."""
        return f"the runtime's llama-server for {' and '.join(self.target.levels)}"

    def location(self, cache: Path) -> Path:
        """Return the folder of the programs: there only when all are."""
        made_from = self.target.key(self.source.sha256, compiler_of(self.target, missing_ok=True))
        return cache / "tools" / f"{self.name}-{made_from[:16]}"

    def is_ready(self, cache: Path) -> bool:
        """Whether it was built to its end, by this compiler."""
        return self.location(cache).is_dir()

    def build(self, cache: Path, *, progress: Progress = lambda _doing: None) -> Path:
        """Compile what is not compiled yet; return the folder of the programs.

        Raises `ToolMissing` (no compiler), `ToolFailed`, `SourceUntrusted`, `DiskFull`, `Locked`.
        """
        compiler_of(self.target)
        folder = self.location(cache)
        disk = PosixDisk(folder_mode=0o755)
        with disk.lock(cache / "tools" / f"{self.name}.lock", holder="drupelet forge toolchain build"):
            if folder.is_dir():
                return folder
            source = self.source.fetch(cache, archive=self.archive, progress=progress)
            # A build tree outlives an interruption: it is named by what it is made from, as its outcome is.
            part = folder.with_suffix(".part")
            (part / "done").mkdir(parents=True, exist_ok=True)
            for level in self.target.levels:
                if not (part / "done" / f"{PREFIX}{level}").exists():
                    self._compile(level, source, part, progress)
            os.sync()
            (part / "done").rename(folder)
            shutil.rmtree(part, ignore_errors=True)
        return folder

    def _compile(self, level: str, source: Path, part: Path, progress: Progress) -> None:
        name, tree, log = f"{PREFIX}{level}", part / "tree", part / "build.log"

        def on_line(line: str) -> None:
            if found := _STEP.match(line):
                self.steps(f"{name}: {Path(found[3]).name}", int(found[1]), int(found[2]))

        progress(f"configuring {name}")
        run(self._configure(level, source, tree), log=log, doing="configuring llama.cpp", fix=_AGAIN)
        run(
            ["ninja", "-C", tree, "-j", str(self.jobs or os.cpu_count() or 1), PROGRAM],
            log=log,
            doing=f"compiling {name}",
            fix=_AGAIN,
            environment={**os.environ, "NINJA_STATUS": "[%f/%t] "},
            on_line=on_line,
        )
        stripped = part / PROGRAM
        strip: list[str | Path] = [f"{self.target.triplet}-strip", "--strip-all", "-o", stripped]
        run([*strip, tree / "bin" / PROGRAM], log=log, doing=f"stripping {name}")
        stripped.rename(part / "done" / name)

    def _configure(self, level: str, source: Path, tree: Path) -> list[str | Path]:
        target = self.target
        native = platform.machine() == target.machine
        cross = () if native else ("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={target.machine}")
        # Neither the place of the source nor of the tree may be seen in the program.
        flags = f"-ffile-prefix-map={source}=llama.cpp -ffile-prefix-map={tree}=build"
        return [
            *("cmake", "-S", source, "-B", tree, "-G", "Ninja", *SETTINGS, *target.levels[level], *cross),
            *(f"-DCMAKE_C_COMPILER={target.triplet}-gcc", f"-DCMAKE_CXX_COMPILER={target.triplet}-g++"),
            *(f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"),
        ]


_AGAIN = "mend what it says and run it again; what is compiled is kept"


def compiler_of(target: Target, *, missing_ok: bool = False) -> str:
    """Return what the target's compiler says of itself, first line. Raises `ToolMissing` naming Debian's package."""
    for program in (f"{target.triplet}-g++", "cmake", "ninja"):
        if shutil.which(program) is None:
            if missing_ok:
                return ""
            cross = f"g++-{target.triplet.replace('_', '-')}"
            package = {"cmake": "cmake", "ninja": "ninja-build"}.get(program, cross)
            raise ToolMissing(f"there is no {program} on the path", fix=f"apt-get install {package} (Debian)")
    asked = [f"{target.triplet}-g++", "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return said.stdout.partition("\n")[0].strip()
