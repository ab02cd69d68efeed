"""`drupelet keys`: make, show, hold and change signing keys. One file a verb."""

from __future__ import annotations

import typer

from drupelet.cli.keys import ceremony, init, rotate, show, sign

app = typer.Typer()
app.command("init")(init.init)
app.command("show")(show.show_keys)
app.command("sign")(sign.sign)
app.command("rotate")(rotate.rotate)
app.command("ceremony")(ceremony.ceremony)
app.command("record")(ceremony.record_shown)
