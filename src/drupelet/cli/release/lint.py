"""`drupelet release lint`: is a package, or what it is made from, right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.lint import Shape, Shaped, conclude, show_findings
from drupelet.durable import PosixDisk
from drupelet.wire.manifest import MANIFEST_NAME


def lint_release(
    paths: Annotated[list[Path], typer.Argument(help="Packages' folders, manifests, recipes.", show_default=False)],
    output: Shaped = Shape.TEXT,
) -> None:
    """Check packages whole (manifest, and every file by its digest), and recipes and manifests by their schemas.

    Example: drupelet release lint build/1.2 models/kiosk/recipe.toml
    """
    from drupelet.ci.lint import lint
    from drupelet.ci.package import lint_package

    found, checked = [], 0
    for path in paths:
        if (path / MANIFEST_NAME).is_file():
            found += lint_package(path, disk=PosixDisk())
            checked += 1
        else:
            findings, files = lint([path])
            found += findings
            checked += files
    show_findings(found, output)
    conclude(found, checked)
