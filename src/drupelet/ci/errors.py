"""What this room refuses; the tree is in the room's docstring."""

from __future__ import annotations

from drupelet.core.errors import BadInput, Conflict


class LintError(BadInput):
    """Findings in files; each has been shown."""


class PipelineThere(Conflict):
    """A pipeline file is there already and is another one."""
