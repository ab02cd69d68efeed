"""What the forge may refuse, and why.

BadInput (core)
|- CheckpointBad          the checkpoint is damaged, incomplete or contradicts itself
|  `- Unsupported         it is whole, but not of a kind that this converter knows
|- ModelFileBad           a model file that is to be imported is damaged or contradicts itself
|- AdapterBad             the adapter is damaged, contradicts itself, or is for another base
|- RecipeBad              the recipe is malformed or asks for what is not there
`- CalibrationBad         the calibration text is no text, too short or too long
Refused (core)
|- EvaluationRefused      a variant breaks a budget or fails a canonical prompt; `findings` says which
`- NoRuntime              no signed runtime serves the release
"""

from __future__ import annotations

from collections.abc import Sequence

from drupelet.core.errors import BadInput, Refused


class CheckpointBad(BadInput):
    """Damaged, incomplete, or contradicting itself."""


class Unsupported(CheckpointBad):
    """Whole, but not of a kind that this converter knows."""


class ModelFileBad(BadInput):
    """A model file that is to be imported is damaged or contradicts itself."""


class AdapterBad(BadInput):
    """Damaged, contradicting itself, or for another base."""


class RecipeBad(BadInput):
    """Malformed, or asking for what is not there."""


class CalibrationBad(BadInput):
    """Not a text that an importance matrix could be made from."""


class PackageBad(BadInput):
    """A file of the package is not what its manifest says."""


class EvaluationRefused(Refused):
    """A budget is broken or a canonical prompt fails. Nothing is packed."""

    def __init__(self, findings: Sequence[str], *, where: str = "") -> None:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"the evaluation refuses this release: {findings[0]}{more}",
            where=where,
            fix="mend the model or the recipe; --override-evaluation REASON packs it anyway and signs the reason",
        )
        self.findings = tuple(findings)


class NoRuntime(Refused):
    """The release and the signed runtimes name each other's minimum, and no runtime will do."""
