"""`drupelet forge plan`: what each variant would cost and give on each board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.forge.build import CheckpointFolder, RecipeFile
from drupelet.cli.output import Format, Output, say, show
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.page import plan_page
from drupelet.forge.plan import BOARDS, Plan, make_plan
from drupelet.forge.plan.predict import SPEED_MAX
from drupelet.forge.recipe import load_recipe
from drupelet.forge.report import Report
from drupelet.wire.codec import decode

CONTEXT_MAX = 1 << 20
COLUMNS = ("board", "variant", "MiB", "KL", "RAM MiB", "fits", "tokens/s", "")


def plan(
    recipe: RecipeFile,
    checkpoint: CheckpointFolder,
    report: Annotated[
        Path | None, typer.Option("--report", help="A build's report.json: its sizes and divergences are measured.")
    ] = None,
    board: Annotated[
        list[str] | None, typer.Option("--board", help="Only this board; may be given again.", show_default="all")
    ] = None,
    context: Annotated[
        list[int] | None, typer.Option("--context", help="Memory at this many tokens, too; may be given again.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the plan as a page with charts.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Predict size, memory, speed and quality of a recipe's variants on each board, and name the set to ship.

    Nothing is converted. Predictions rest on stated bandwidths and reported speeds, which the page names.

    Example: drupelet forge plan models/kiosk/recipe.toml --checkpoint models/kiosk/1.2 --html plan.html
    """
    known, _ = load_recipe(recipe)
    if unknown := [name for name in board or () if name not in BOARDS]:
        raise BadInput(f"there is no board {unknown[0]!r}", fix=f"use one of {', '.join(BOARDS)}")
    if wrong := [tokens for tokens in context or () if not 16 <= tokens <= CONTEXT_MAX]:
        raise BadInput(f"a context of {wrong[0]} tokens", fix=f"use 16 to {CONTEXT_MAX}")
    disk = PosixDisk(folder_mode=0o755)
    measured = None
    if report is not None:
        measured = decode(Report, disk.read(report.absolute(), bytes_max=Report.BYTES_MAX), where=str(report))
    opened = open_checkpoint(checkpoint.absolute())
    ffn = opened.fields.get("intermediate_size")
    made = make_plan(
        known,
        opened.shape,
        [one for one in BOARDS.values() if not board or one.name in board],
        parameters=opened.parameters,
        feed_forward=ffn if isinstance(ffn, int) else 4 * opened.shape.hidden,
        contexts=context or (),
        report=measured,
    )
    if html is not None:
        disk.replace(html.absolute(), plan_page(made), mode=0o644)
    show(made, output=output, columns=COLUMNS, rows=_rows(made))
    say(f"All predicted, but for what was measured. To ship: {', '.join(made.recommended) or 'none of these'}.")


def _rows(made: Plan) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for index, board in enumerate(made.boards):
        for one in made.variants:
            placed = one.boards[index]
            size = "?" if one.size_bytes is None else f"{one.size_bytes / 2**20:.1f}"
            kl = "?" if one.kl_mean is None else f"{one.kl_mean:.5f}"
            if placed.fits is None:
                why = "size unknown" if placed.runs else f"runs no {one.file_format}"
                rows.append((board["name"], one.name, size, kl, "", why, "", ""))
                continue
            memory = f"{one.memory_bytes[made.context_tokens] / 2**20:.0f}"
            low, high = placed.tokens_per_second_low, placed.tokens_per_second_high
            speed = f"over {low:.0f}" if low >= SPEED_MAX else f"{low:.3g}-{high:.3g}"
            mark = "recommended" if placed.recommended else "" if placed.fast_enough else "too slow"
            rows.append((board["name"], one.name, size, kl, memory, "yes" if placed.fits else "no", speed, mark))
    return rows
