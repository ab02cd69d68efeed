"""llama.cpp's programs, compiled once: named by the digest of source, settings and compiler.

The settings say why they are set. A build may be interrupted at any moment: what was compiled is kept and ninja goes on
from there; the programs get their place only when all of them are linked.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drupelet.durable.port import DiskFull
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.venvs import Progress, ToolMissing, ToolVenv

PROGRAMS = (
    "llama-quantize",
    "llama-imatrix",
    "llama-perplexity",
    "llama-bench",
    "llama-server",
    "llama-export-lora",
)
SETTINGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",  # one file a program, nothing to find at run time
    "-DGGML_NATIVE=OFF",  # the same instructions whatever machine compiles
    "-DGGML_OPENMP=OFF",  # no libgomp to install where it runs
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",  # the tools never open a connection
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_COMMIT=release",  # else the commit of whatever repository the cache lies in
)
NUMBERS = "-ffp-contract=off"
"""Without it a compiler may fuse a multiplication and an addition, which rounds once instead of twice, on one kind of
processor and not on another: the same recipe would give other bytes there."""
CMAKE = ToolVenv(name="cmake", requirements=("cmake==4.4.5", "ninja==1.13.2"))
"""For machines without Debian's cmake and ninja-build."""
BUILD_BYTES = 1_200_000_000
"""Room that a build takes before its programs are stripped, measured and rounded up."""
_STEP = re.compile(r"^\[(\d+)/(\d+)\] (?:Building|Linking) \S+ (?:static library |executable |object )?(.*)$")

Steps = Callable[[str, int, int], None]
"""Called with what is compiled, steps done and steps in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """What compiles: the programs and what they say of themselves."""

    cmake: Path
    ninja: Path
    version: str
    """First lines of the C and the C++ compiler's `--version`, and the machine's kind."""


def find_compiler(cache: Path, *, progress: Progress = lambda _doing: None) -> Compiler:
    """Return the compiler here; cmake and ninja come from PyPI if they are not on the path. Raises `ToolMissing`."""
    said = []
    for program in ("cc", "c++"):
        path = shutil.which(program)
        if path is None:
            raise ToolMissing(
                f"there is no compiler {program!r} on the path", fix="install one: apt-get install g++ (Debian)"
            )
        shown = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        said.append(shown.stdout.partition("\n")[0].strip())
    cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
    if cmake is None or ninja is None:
        folder = CMAKE.build(cache, progress=progress).parent
        cmake, ninja = str(folder / "cmake"), str(folder / "ninja")
    return Compiler(cmake=Path(cmake), ninja=Path(ninja), version="; ".join((*said, platform.machine())))


def key(source_sha256: str, compiler: Compiler) -> str:
    """Return the digest, in hex, of all that decides what the programs are."""
    decides = [source_sha256, PROGRAMS, SETTINGS, NUMBERS, compiler.version]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeBuild:
    """One build of the programs in `folder`."""

    folder: Path
    source: Path
    compiler: Compiler
    jobs: int

    @property
    def programs(self) -> Path:
        """The folder of the finished programs: there only when all are."""
        return self.folder / "bin"

    def build(self, *, steps: Steps, progress: Progress = lambda _doing: None) -> Path:
        """Compile what is not compiled yet; return the folder of the programs. Raises `ToolFailed`, `DiskFull`."""
        if self.programs.is_dir():
            return self.programs
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < BUILD_BYTES:
            what = f"compiling takes about {BUILD_BYTES >> 20} MiB and {free >> 20} MiB are free"
            raise DiskFull(what, where=str(self.folder), fix="free space, or set DRUPELET_CACHE to another folder")
        log, tree = self.folder / "build.log", self.folder / "tree"
        again = "mend what it says and run it again; what is compiled is kept"
        if not (tree / "build.ninja").exists():
            progress("configuring llama.cpp")
            flags = f"{NUMBERS} -ffile-prefix-map={self.source}=llama.cpp"
            run(
                [
                    *(self.compiler.cmake, "-S", self.source, "-B", tree, "-G", "Ninja", *SETTINGS),
                    *(f"-DCMAKE_MAKE_PROGRAM={self.compiler.ninja}", f"-DCMAKE_C_FLAGS={flags}"),
                    f"-DCMAKE_CXX_FLAGS={flags}",
                ],
                log=log,
                doing="configuring llama.cpp",
                fix=again,
            )

        def on_line(line: str) -> None:
            if found := _STEP.match(line):
                steps(Path(found[3]).name, int(found[1]), int(found[2]))

        # NINJA_STATUS may be set to anything by the user; the steps are read from it.
        environment = {**os.environ, "NINJA_STATUS": "[%f/%t] "}
        run(
            [self.compiler.ninja, "-C", tree, "-j", str(self.jobs), *PROGRAMS],
            log=log,
            doing="compiling llama.cpp",
            fix=again,
            environment=environment,
            on_line=on_line,
        )
        self._place(tree, log)
        return self.programs

    def _place(self, tree: Path, log: Path) -> None:
        """Strip the programs, give them their place in one step and remove what they were compiled in."""
        part = self.folder / "bin.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        strip = shutil.which("strip")
        for program in PROGRAMS:
            shutil.copy2(tree / "bin" / program, part / program)
            if strip is not None:
                run([strip, part / program], log=log, doing=f"stripping {program}")
        os.sync()
        part.rename(self.programs)
        shutil.rmtree(tree, ignore_errors=True)
