"""llama.cpp's own tools as one thing that is built once: source, a Python for its converters, compiled programs.

Each part is whole or not there, and is named by what it was made from. A note, `llama.cpp.json`, is written last and
says which parts make up the toolchain; without it, or with one of another version's pins, there is none.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest
from drupelet.durable import PosixDisk
from drupelet.durable.port import hash_file
from drupelet.forge.toolchain.native import NUMBERS, PROGRAMS, SETTINGS, NativeBuild, Steps, find_compiler, key
from drupelet.forge.toolchain.source import Source
from drupelet.forge.toolchain.venvs import Progress, ToolFailed, ToolMissing, ToolVenv
from drupelet.wire.codec import Message, decode, encode_canonical
from drupelet.wire.fields import DigestText

NAME = "llama.cpp"
SOURCE = Source(
    project="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    inside="vendor/llama.cpp",
)
TORCH = "torch==2.13.0"
REQUIREMENTS = (
    "transformers==4.57.6",
    "sentencepiece==0.2.1",
    "protobuf==4.25.8",
    "numpy==2.2.6",
    "PyYAML==6.0.3",
    "tqdm==4.70.1",
)
"""What llama.cpp's converters import, beside torch and the `gguf` that lies in their own source."""
_NEEDED = "import torch, transformers, sentencepiece, google.protobuf, numpy, yaml, tqdm"
_VERSIONS = (
    "import sys, importlib.metadata as m; print(sys.version.split()[0]);"
    "[print(d.metadata['Name'], d.version) for d in m.distributions()]"
)
_NOTE_BYTES_MAX = 64 << 10


class Note(Message, frozen=True, kw_only=True):
    """What the toolchain that was built here consists of."""

    FORMAT: ClassVar[str] = "drupelet.toolchain/1"
    BYTES_MAX: ClassVar[int] = _NOTE_BYTES_MAX

    format: str = "drupelet.toolchain/1"
    source: Annotated[str, Meta(min_length=1)]
    source_digest: DigestText
    python: Annotated[str, Meta(min_length=1)]
    python_digest: DigestText
    """Of the versions of Python and of all packages there."""
    programs: Annotated[str, Meta(min_length=1)]
    program_digests: dict[str, DigestText]
    compiler: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A toolchain that is there, whole. Its digests go into the ledger."""

    source: Path
    python: Path
    programs: Path
    converter_digest: Digest
    """Of the source and of the packages that the converters run with."""
    program_digests: dict[str, Digest]
    version: str

    def program(self, name: str) -> Path:
        """Return a compiled program, or raise `NotFound` naming those there are."""
        if name not in self.program_digests:
            raise NotFound(
                f"llama.cpp's toolchain has no program {name!r}", fix=f"it has {', '.join(self.program_digests)}"
            )
        return self.programs / name


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCpp:
    """How to build it. `python` is an interpreter that has torch and transformers, to be used as it is."""

    name: str = NAME
    says: str = "every architecture, K- and I-quants, importance matrices, LoRA"
    source: Source = SOURCE
    torch: str = TORCH
    python: Path | None = None
    archive: Path | None = None
    jobs: int = 0
    steps: Steps = lambda _doing, _done, _total: None

    def location(self, cache: Path) -> Path:
        """Return the file that says what the toolchain consists of."""
        return cache / "tools" / "llama.cpp.json"

    def is_ready(self, cache: Path) -> bool:
        """Whether it was built to its end, by this version of Drupelet."""
        try:
            self.open(cache)
        except ToolMissing:
            return False
        return True

    def build(self, cache: Path, *, progress: Progress = lambda _doing: None) -> Path:
        """Build what is missing; return the folder of the programs.

        Raises `ToolFailed` (a step ended badly), `ToolMissing` (no compiler), `SourceUntrusted`, `DiskFull`, `Locked`
        (another build is going on), `BadInput` (the Python given lacks a package).
        """
        disk = PosixDisk(folder_mode=0o755)
        with disk.lock(cache / "tools" / "llama.cpp.lock", holder="drupelet forge toolchain build"):
            source = self.source.fetch(cache, archive=self.archive, progress=progress)
            python = self._python(cache, progress)
            compiler = find_compiler(cache, progress=progress)
            made_from = key(self.source.sha256, compiler)
            native = NativeBuild(
                folder=cache / "tools" / f"llama.cpp-native-{made_from[:16]}",
                source=source,
                compiler=compiler,
                jobs=self.jobs or os.cpu_count() or 1,
            )
            programs = native.build(steps=self.steps, progress=progress)
            note = Note(
                source=str(source),
                source_digest=f"sha256:{self.source.sha256}",
                python=str(python),
                python_digest=_packages_digest(python).text,
                programs=str(programs),
                program_digests={name: hash_file(disk, programs / name)[0].text for name in PROGRAMS},
                compiler=compiler.version,
                settings=_pins(),
            )
            disk.replace(self.location(cache), encode_canonical(note), mode=0o644)
        return programs

    def open(self, cache: Path) -> Installed:
        """Return the toolchain; raise `ToolMissing` if it is not there, of other pins, or not what was built."""
        path = self.location(cache)
        disk = PosixDisk()
        if not disk.exists(path):
            raise _missing("llama.cpp's toolchain has not been built here", path)
        try:
            note = decode(Note, disk.read(path, bytes_max=_NOTE_BYTES_MAX), where=str(path))
        except BadInput as error:
            raise _missing(f"the note of the toolchain cannot be read: {error.what}", path) from error
        if note.source_digest != f"sha256:{self.source.sha256}" or note.settings != _pins():
            raise _missing("the toolchain was built for another version of Drupelet", path)
        programs = Path(note.programs)
        for name, digest in note.program_digests.items():
            if not (programs / name).exists() or hash_file(disk, programs / name)[0].text != digest:
                raise _missing(f"{name} is no longer what was built", programs)
        for needed in (Path(note.source) / "convert_hf_to_gguf.py", Path(note.python)):
            if not needed.exists():
                raise _missing(f"{needed.name} is gone", needed.parent)
        both = f"{note.source_digest}\n{note.python_digest}\n"
        return Installed(
            source=Path(note.source),
            python=Path(note.python),
            programs=programs,
            converter_digest=Digest.of_hex(hashlib.sha256(both.encode()).hexdigest()),
            program_digests={name: Digest.parse(text) for name, text in note.program_digests.items()},
            version=f"llama.cpp of {self.source.project} {self.source.version}",
        )

    def _python(self, cache: Path, progress: Progress) -> Path:
        if self.python is None:
            return ToolVenv(name="llama.cpp-python", requirements=(self.torch, *REQUIREMENTS)).build(
                cache, progress=progress
            )
        try:
            tried = subprocess.run(
                [self.python, "-c", _NEEDED], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise BadInput(f"cannot be run: {error.strerror}", where=str(self.python)) from error
        if tried.returncode != 0:
            lacks = tried.stderr.strip().rpartition("\n")[2][:200]
            fix = f"install what is missing there, or leave --python out ({TORCH}, {', '.join(REQUIREMENTS)})"
            raise BadInput(f"this Python cannot run llama.cpp's converter: {lacks}", where=str(self.python), fix=fix)
        return self.python.absolute()


def _pins() -> tuple[str, ...]:
    return (*PROGRAMS, *SETTINGS, NUMBERS)


def _packages_digest(python: Path) -> Digest:
    shown = subprocess.run([python, "-c", _VERSIONS], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if shown.returncode != 0:
        raise ToolFailed("this Python cannot list its packages", where=str(python), fix="use another with --python")
    return Digest.of_hex(hashlib.sha256(b"\n".join(sorted(shown.stdout.split(b"\n")))).hexdigest())


def _missing(what: str, where: Path) -> ToolMissing:
    return ToolMissing(what, where=str(where), fix=f"run: drupelet forge toolchain build {NAME}")
