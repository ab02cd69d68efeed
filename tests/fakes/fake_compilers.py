"""Stand-ins for cmake, ninja and a compiler, and for a source distribution: small programs that print like the real.

`FakeCompilers` makes a folder to be put on the path. Its ninja prints `[n/m] Building ...` lines and links programs
that say their name; `stop_after` makes it hang after so many steps until it is ended, `fail_at` makes a step fail.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from drupelet.forge.toolchain.native import PROGRAMS
from drupelet.forge.toolchain.source import Source

CMAKE = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -B ] && tree=$2; shift; done
mkdir -p "$tree" && touch "$tree/build.ninja"
echo "-- Configuring done"
"""
NINJA = """#!/bin/sh
tree=$2
mkdir -p "$tree/bin" "$tree/done"
n=0; total=6
for step in ggml llama common tools server all; do
  n=$((n + 1))
  [ -e "$tree/done/$step" ] && continue
  [ "$n" = "{fail_at}" ] && {{ echo "FAILED: $step.o"; echo "$step.cpp:1:1: fatal error: no such header"; exit 1; }}
  echo "[$n/$total] Building CXX object $step.dir/$step.cpp.o"
  touch "$tree/done/$step"
  [ "$n" = "{stop_after}" ] && {{ touch "$tree/stopped"; sleep 60; }}
done
for program in {programs}; do
  printf '#!/bin/sh\\necho %s\\n' "$program" > "$tree/bin/$program"; chmod +x "$tree/bin/$program"
done
"""
COMPILER = """#!/bin/sh
echo "fake compiler 1.0"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCompilers:
    """A folder with `cmake`, `ninja`, `cc`, `c++`, `strip` and `python`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, stop_after: int = 0, fail_at: int = 0) -> FakeCompilers:
        """Write the programs; 0 means never."""
        folder.mkdir(parents=True, exist_ok=True)
        ninja = NINJA.format(programs=" ".join(PROGRAMS), stop_after=stop_after, fail_at=fail_at)
        python = '#!/bin/sh\necho "torch 2.13.0"\n'
        for name, text in (
            ("cmake", CMAKE),
            ("ninja", ninja),
            ("cc", COMPILER),
            ("c++", COMPILER),
            ("strip", "#!/bin/sh\n"),
            ("python", python),
        ):
            path = folder / name
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return cls(folder=folder)

    @property
    def python(self) -> Path:
        """An interpreter that claims to have every package."""
        return self.folder / "python"


def write_archive(path: Path, members: dict[str, bytes] | None = None, *, links: dict[str, str] | None = None) -> Path:
    """Write a gzipped tar like a source distribution's; `links` are symbolic, name -> target."""
    chosen = members if members is not None else {"top/vendor/llama.cpp/convert_hf_to_gguf.py": b"print('hello')\n"}
    # Without a time in it, so that the same members give the same digest.
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in chosen.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def source_of(sha256: str) -> Source:
    """Return a source pinned to this digest."""
    return Source(project="llama-cpp-python", version="0.3.36", sha256=sha256, inside="vendor/llama.cpp")
