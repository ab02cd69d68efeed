"""`drupelet depot`: where artifacts lie. Serve, fill, check, copy, collect."""

from __future__ import annotations

import typer

from drupelet.cli.depot import blobs, move, renew, serve, tidy

app = typer.Typer()
for verb in (
    serve.serve,
    blobs.put,
    blobs.check,
    move.push,
    move.pull,
    move.copy,
    tidy.ls,
    tidy.gc,
    tidy.link,
    tidy.unlock,
    renew.renew,
):
    app.command()(verb)
