"""Python tools in virtual environments of their own, one per set of pinned requirements, named by its digest.

Converters bring torch and transformers along, which neither a device nor the forge itself wants. `ToolVenv.build`
installs them once; `ToolVenv.python` is what a format's converter is then run with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import NotFound, Unavailable

_READY = "ready"
Progress = Callable[[str], None]


class ToolMissing(NotFound):
    """A tool that a recipe asks for has not been built here."""


class ToolFailed(Unavailable):
    """Building a tool failed; what it printed is in the file named."""


def cache_folder() -> Path:
    """Return where tools are kept: `$DRUPELET_CACHE`, or `~/.cache/drupelet`."""
    named = os.environ.get("DRUPELET_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "drupelet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolVenv:
    """A named environment with exactly these requirements (`package==version`)."""

    name: str
    requirements: tuple[str, ...]
    says: str = ""
    """What it is for."""
    pins: tuple[str, ...] = ()
    """Versions of what the requirements bring along, as a constraints file has them."""

    def folder(self, cache: Path) -> Path:
        """Return where it lies, or would: another Python or another pin is another folder."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        asked = "\n".join((python, *sorted(self.requirements), *sorted(self.pins)))
        return cache / "tools" / f"{self.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"

    def location(self, cache: Path) -> Path:
        """Return the same, as every tool is asked."""
        return self.folder(cache)

    def is_ready(self, cache: Path) -> bool:
        """Whether it was built to its end."""
        return (self.folder(cache) / _READY).exists()

    def python(self, cache: Path) -> Path:
        """Return its interpreter, or raise `ToolMissing`."""
        if not self.is_ready(cache):
            raise ToolMissing(
                f"the tools for {self.name} are not installed here",
                where=str(self.folder(cache)),
                fix=f"run: drupelet forge toolchain build {self.name}",
            )
        return self.folder(cache) / "bin" / "python"

    def build(self, cache: Path, *, progress: Progress = lambda _doing: None) -> Path:
        """Install it, unless it is there; return its interpreter. Raises `ToolFailed`. A half-made one is made anew."""
        folder = self.folder(cache)
        if not self.is_ready(cache):
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            progress(f"making an environment for {self.name}")
            log = folder.with_name(folder.name + ".log")
            self._run([sys.executable, "-m", "venv", str(folder)], log)
            progress(f"installing {', '.join(self.requirements)}")
            constraints = folder / "constraints.txt"
            constraints.write_text("".join(f"{pin}\n" for pin in self.pins))
            install = ["-m", "pip", "install", "--disable-pip-version-check", "-c", str(constraints)]
            self._run([str(folder / "bin" / "python"), *install, *self.requirements], log)
            (folder / _READY).write_text("\n".join(self.requirements) + "\n")
        return self.python(cache)

    def _run(self, command: list[str], log: Path) -> None:
        with log.open("ab") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
        if done.returncode != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ToolFailed(
                f"installing the tools for {self.name} failed: {' '.join(last)[:300]}",
                where=str(log),
                fix="mend what it says and run it again",
            )
