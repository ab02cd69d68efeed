"""Where and with what the evaluation works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drupelet.durable.port import Disk
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe
from drupelet.forge.runners import RUNNERS
from drupelet.forge.runners.port import Runner, RunSpec

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and with what the evaluation works. `cache` keeps the reference's logits between runs."""

    disk: Disk
    cache: Path
    runtime_folder: Path
    """Short path for the children's sockets."""
    progress: Progress = lambda _doing: None
    emulated: Runner | None = None
    """What answers the canonical prompts as a board's processor would, where the user names one."""
    runners: Mapping[str, Runner] = field(default_factory=lambda: RUNNERS)


def run_spec(recipe: Recipe, artifact: Artifact) -> RunSpec:
    """Return how `artifact` is run: with the recipe's context, alias and threads, its digest checked."""
    model = artifact if artifact.base is None else artifact.base
    return RunSpec(
        model=model.path,
        alias=recipe.model,
        context_tokens=recipe.context_tokens,
        threads=recipe.evaluation.threads,
        digest=model.digest,
        adapters=() if artifact.base is None else (artifact.path,),
    )
