"""`drupelet forge toolchain`: the tools beside the forge, built once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, print_json, say, show
from drupelet.cli.progress import StepBar
from drupelet.core.errors import BadInput
from drupelet.forge.toolchain.llamacpp import NAME, TORCH, LlamaCpp
from drupelet.forge.toolchain.registry import TOOLS, Tool
from drupelet.forge.toolchain.servers import Servers
from drupelet.forge.toolchain.venvs import cache_folder

app = typer.Typer(no_args_is_help=True)


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"What to build: {', '.join(TOOLS)}.", show_default=NAME)
    ] = None,
    torch: Annotated[str, typer.Option("--torch", help="What pip is asked for as torch.")] = TORCH,
    python: Annotated[
        Path | None,
        typer.Option("--python", help="Use this interpreter, which has torch and transformers, as it is."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", help="The source distribution, downloaded before; its digest is checked.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, max=1024, help="Compile so many files at once; 0: as many as processors.")
    ] = 0,
) -> None:
    """Build tools into the cache ($DRUPELET_CACHE or ~/.cache/drupelet). What is there already is not built again.

    Example: drupelet forge toolchain build llama.cpp
    """
    cache = cache_folder().absolute()
    with StepBar() as bar:
        for tool in _chosen(names):
            if isinstance(tool, LlamaCpp):
                tool = replace(tool, torch=torch, python=python, archive=source, jobs=jobs, steps=bar.steps_done)  # noqa: PLW2901
            elif isinstance(tool, Servers):
                tool = replace(tool, archive=source, jobs=jobs, steps=bar.steps_done)  # noqa: PLW2901
            made = tool.build(cache, progress=bar.doing)
            say(f"{tool.name} is ready: {made}")


@app.command(name="show")
def show_tools(output: Output = Format.TABLE) -> None:
    """Show which tools there are, which are built, and where.

    Example: drupelet forge toolchain show
    """
    cache = cache_folder().absolute()
    found = [
        {
            "name": tool.name,
            "ready": tool.is_ready(cache),
            "where": str(tool.location(cache)),
            "says": tool.says,
        }
        for tool in TOOLS.values()
    ]
    rows = [(one["name"], "yes" if one["ready"] else "no", one["says"], one["where"]) for one in found]
    show(found, output=output, columns=("tool", "ready", "for", "where"), rows=rows)


@app.command()
def path(
    program: Annotated[str, typer.Argument(help="Such as llama-quantize.", show_default="all programs")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print where llama.cpp's programs lie, or one of them, for use in a shell.

    Example: "$(drupelet forge toolchain path llama-bench)" -m build/1.2/q4_k_m.gguf
    """
    installed = LlamaCpp().open(cache_folder().absolute())
    found = installed.program(program) if program else installed.programs
    if output is Format.JSON:
        print_json({"path": str(found), "programs": {name: str(d) for name, d in installed.program_digests.items()}})
    else:
        print(found)


def _chosen(names: list[str] | None) -> list[Tool]:
    for name in names or []:
        if name not in TOOLS:
            raise BadInput(f"there is no tool {name!r}", fix=f"use one of {', '.join(TOOLS)}")
    return [TOOLS[name] for name in (names or [NAME])]
