"""`drupelet forge`: from a checkpoint to a signed, published release. One file a verb."""

from __future__ import annotations

import typer

from drupelet.cli.forge import build, check, deb, image, importing, mender, merge, plan, publish, runtime, toolchain

app = typer.Typer()
for verb in (check.check, build.build, publish.publish, plan.plan, mender.mender, merge.merge, image.image, deb.deb):
    app.command()(verb)
app.command("import")(importing.import_model)
app.add_typer(toolchain.app, name="toolchain", help="Tools beside the forge: llama.cpp's own, built once.")
app.add_typer(runtime.app, name="runtime", help="The runtime's image, once built: into a registry, and signed.")
