"""`drupelet release diff`: what changes from one release to another."""

from __future__ import annotations

from drupelet.ci.compare import by_how_much, compare, in_words
from drupelet.cli.api import NO_SERVER, Server, Token
from drupelet.cli.output import Format, Output, say, show
from drupelet.cli.release.source import Source, manifest_of


def diff(
    a: Source,
    b: Source,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Show what changes from A to B: variants, sizes, quality, budgets, prompts, requirements, where it came from.

    Example: drupelet release diff kiosk/1.1 build/1.2
    """
    before, after = (manifest_of(one, server=server, token=token) for one in (a, b))
    changes = compare(before, after)
    value = {"a": before.release.path, "b": after.release.path, "same": not changes, "changes": changes}
    rows = []
    for change in changes:
        unit = (change.field or change.item or change.section).split(" ")[-1]
        rows.append(
            (change.name, in_words(unit, change.before), in_words(unit, change.after), by_how_much(change)),
        )
    if output is Format.TABLE and not changes:
        say(f"{before.release} and {after.release} say the same")
        return
    show(value, output=output, columns=("what", str(before.release), str(after.release), "change"), rows=rows)
