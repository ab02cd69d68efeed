"""`drupelet release list`, `add`, `condemn`: what the fleet may roll out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from drupelet.cli.api import NO_SERVER, Api, Reason, Server, Token, release_path
from drupelet.cli.output import Format, Output, say, show

Release = Annotated[str, typer.Argument(help="Family and version, such as kiosk/1.2.")]
COLUMNS = ("release", "evaluation", "devices", "variants", "state")


def list_releases(server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """List registered releases, the newest first.

    Example: drupelet release list
    """
    found = Api(server, token).rows("/releases")
    show(found, output=output, columns=COLUMNS, rows=[_row(release) for release in found])


def _row(release: dict[str, Any]) -> tuple[object, ...]:
    variants = ", ".join(variant["name"] for variant in release["variants"])
    state = f"condemned: {release['condemned_reason']}" if release["condemned"] else "good"
    return release["id"], evaluation(release), release["devices"], variants, state


def evaluation(release: dict[str, Any]) -> str:
    """Return the evaluation's verdict in a word or, where it was overridden, the words of whoever did it."""
    if release["overridden"]:
        return f"OVERRIDDEN: {release['overridden']}"
    return "passed" if release["evaluation_passed"] else "FAILED"


def add(release: Release, server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """Register a published release: the server fetches its manifest and verifies it against the image root.

    Example: drupelet release add kiosk/1.2
    """
    made = Api(server, token).post("/releases", {"release": release})
    show(made, output=output, columns=COLUMNS, rows=[_row(made)])


def condemn(release: Release, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Put a release on the list that every device refuses, and take it back from those that have it.

    Example: drupelet release condemn kiosk/1.4 --reason 'answers in riddles'
    """
    done = Api(server, token).post(f"{release_path(release)}/condemn", {"reason": reason})
    back = ", ".join(str(number) for number in done["rolled_back"])
    say(f"{done['release']} is condemned" + (f"; rollout {back} goes back" if back else ""))
