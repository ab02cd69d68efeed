"""`drupelet ci`: a pipeline for your repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.ci.pipelines import Service, render
from drupelet.ci.repository import plan_of, refuse_other
from drupelet.cli.output import say
from drupelet.durable import PosixDisk

app = typer.Typer()


@app.callback()
def _ci() -> None:
    """Pipelines that build, evaluate, sign, publish and roll out a model, and fail when it is taken back."""


@app.command()
def init(
    service: Annotated[Service, typer.Argument(help="Who runs the pipeline.")],
    folder: Annotated[Path, typer.Option("--folder", help="Your repository's top.")] = Path(),
    recipe: Annotated[str, typer.Option("--recipe", help="Else the one recipe.toml that is there.")] = "",
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="Else the one beside the recipe.")] = "",
    policy: Annotated[str, typer.Option("--policy", help="Else policy.toml, if there is one.")] = "",
    to: Annotated[str, typer.Option("--to", "-l", help="Devices of the rollout; empty means every device.")] = "",
    runtime: Annotated[
        str,
        typer.Option("--runtime", help="Folder of the runtime image's Containerfile; else runtime/, if it has one."),
    ] = "",
    tests: Annotated[str, typer.Option("--tests", help="Your tests; else pytest, if there is a folder tests.")] = "",
    keys: Annotated[
        str, typer.Option("--keys", help="The key ring's public files: they say which secrets or which cloud sign.")
    ] = "keys",
    branch: Annotated[str, typer.Option("--branch", help="Whose pushes are built.")] = "main",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    stdout: Annotated[bool, typer.Option("--print", help="Print the file and write nothing.")] = False,
) -> None:
    """Write a pipeline: lint, tests, image, convert and evaluate, validate, sign, publish, staged rollout, verdict.

    Example: drupelet ci init github --to 'site=lab'
    """
    plan = plan_of(
        folder, recipe=recipe, checkpoint=checkpoint, policy=policy, selector=to, runtime=runtime, tests=tests,
        keys=keys, branch=branch,
    )  # fmt: skip
    text = render(service, plan)
    if stdout:
        print(text, end="")
        return
    path = folder / service.path
    if refuse_other(path, text, force=force):
        PosixDisk(folder_mode=0o755).replace(path.absolute(), text.encode(), mode=0o644)
        say(f"{path} is written; its first lines say which variables and secrets it needs")
    else:
        say(f"{path} is there already, and is the same")
    if not plan.runtime:
        say("no image is built: there is no runtime/Containerfile or runtime/Dockerfile")
