"""The tools that `drupelet forge toolchain` can build, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from drupelet.forge.toolchain.environments import ENVIRONMENTS
from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.servers import TARGETS, Servers
from drupelet.forge.toolchain.venvs import Progress


class Tool(Protocol):
    """Something that is built once into the cache, whole or not at all."""

    @property
    def name(self) -> str:
        """As the command takes it."""
        ...

    @property
    def says(self) -> str:
        """What it is for."""
        ...

    def location(self, cache: Path) -> Path:
        """Return where it lies, or would."""
        ...

    def is_ready(self, cache: Path) -> bool:
        """Whether it was built to its end."""
        ...

    def build(self, cache: Path, *, progress: Progress = ...) -> Path:
        """Build it, unless it is there; return what to use it by. Raises `ToolFailed`."""
        ...


_ALL: tuple[Tool, ...] = (LlamaCpp(), *map(Servers, TARGETS.values()), *ENVIRONMENTS.values())

TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in _ALL}
"""Name -> tool."""
