"""`drupelet lint`: are the files right that releases and rollouts are made from?"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from drupelet import __version__
from drupelet.ci.errors import LintError
from drupelet.ci.lint import Finding, Level, github, lint, sarif
from drupelet.cli.output import plain, print_json, say


class Shape(Enum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


Paths = Annotated[
    list[Path] | None, typer.Argument(help="Files, or folders to search.", show_default="the folder here")
]
Shaped = Annotated[
    Shape,
    typer.Option("-o", "--output", "--format", help="Text, JSON, GitHub annotations, or SARIF for code scanning."),
]


def lint_files(
    paths: Paths = None,
    output: Shaped = Shape.TEXT,
    schema: Annotated[
        str, typer.Option("--schema", help="Print the JSON Schema of a kind of file instead: recipe, policy, ...")
    ] = "",
) -> None:
    """Check recipes, rollout policies, release manifests and settings files; exit code 2 if anything is wrong.

    Example: drupelet lint models/kiosk/recipe.toml policy.toml --format github
    """
    if schema:
        from drupelet.ci.schemas import schema_of

        print_json(schema_of(schema))
        return
    found, checked = lint(paths or [Path()])
    show_findings(found, output)
    conclude(found, checked)


def conclude(found: list[Finding], checked: int) -> None:
    """Say how it went; raise `LintError` if there is a mistake."""
    wrong = [finding.file for finding in found if finding.level is Level.ERROR]
    if wrong:
        raise LintError(f"{_many(len(wrong), 'mistake')} in {_many(len(set(wrong)), 'file')}")
    say(f"{_many(checked, 'file')} checked, nothing is wrong" if checked else "no file of Drupelet's is here")


def show_findings(found: list[Finding], output: Shape) -> None:
    """Print findings in the shape that was asked for."""
    if output is Shape.JSON:
        print_json([msgspec.to_builtins(finding) for finding in found])
    elif output is Shape.SARIF:
        print_json(sarif(found, version=__version__))
    else:
        for finding in found:
            print(plain(github(finding) if output is Shape.GITHUB else finding.text()))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
