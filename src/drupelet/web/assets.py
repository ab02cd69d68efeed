"""Style sheet, scripts and the chart library, from inside the installed packages: no network, no build step.

Every file is named by its content (`/assets/<digest>/<name>`), so browsers keep it for ever and never keep an old one.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from drupelet.fleet.errors import NoSuch

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
OURS = ("drupelet.css", "chart.css", "live.js", "tame.js", "chart.js", "mark.svg")
PLOTLY = "plotly.min.js"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file ready to be sent. `packed` is its gzip form."""

    name: str
    digest: str
    body: bytes
    packed: bytes
    media_type: str

    @property
    def path(self) -> str:
        """Its address."""
        return f"/assets/{self.digest}/{self.name}"


@lru_cache(maxsize=len(OURS) + 1)
def asset(name: str) -> Asset:
    """Return a file by name, or raise `NoSuch`. Reads it once; the chart library takes a moment."""
    body = _read(name)
    digest = hashlib.sha256(body).hexdigest()[:16]
    return Asset(name, digest, body, gzip.compress(body, 6, mtime=0), TYPES[name.rpartition(".")[2]])


def _read(name: str) -> bytes:
    if name in OURS:
        return (files("drupelet.web") / "static" / name).read_bytes()
    if name == PLOTLY:
        return _plotly().read_bytes()
    raise NoSuch(f"there is no asset {name[:80]!r}")


def _plotly() -> Path:
    """Find the library without importing it: the import takes longer than everything else."""
    found = importlib.util.find_spec("plotly")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "package_data" / PLOTLY
        if path.is_file():
            return path
    raise NoSuch("the chart library is not installed", fix="install the extra 'fleet'")
