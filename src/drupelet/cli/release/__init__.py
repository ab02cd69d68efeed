"""`drupelet release`: releases on the fleet server and in files: list, show, compare, check, hand on."""

from __future__ import annotations

import typer

from drupelet.cli.release import diff, export, lint, server, show

app = typer.Typer()
app.command("list")(server.list_releases)
app.command("show")(show.show_one)
app.command("diff")(diff.diff)
app.command("lint")(lint.lint_release)
app.command("add")(server.add)
app.command("condemn")(server.condemn)
app.command("export")(export.export)
