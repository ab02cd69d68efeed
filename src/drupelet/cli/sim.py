"""`drupelet sim`: run the production decisions in a simulated world."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from drupelet.cli.output import Format, Output, say, show
from drupelet.core.errors import Refused

app = typer.Typer()


@app.command()
def run(
    seed: Annotated[int, typer.Option("--seed", help="The first seed; the same seed lives the same life.")] = 1,
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="How many seeds.")] = 20,
    output: Output = Format.TABLE,
) -> None:
    """Let simulated devices live through orders, faults and power cuts; fails at the first broken invariant.

    Example: drupelet sim run --seed 7 --count 100
    """
    from drupelet.sim import crash
    from drupelet.sim.device import Violation

    rows = []
    for each in range(seed, seed + count):
        try:
            device = crash.run(each)
        except Violation as violation:
            fix = f"drupelet sim run --seed {each} --count 1"
            raise Refused(f"an invariant broke: {violation}", where=f"seed {each}", fix=fix) from violation
        state = device.state
        row = {
            "seed": each,
            "power_cuts": device.crashes,
            "events": state.seq,
            "durable_steps": device.disk.count,
            "state": state.state.value,
            "reason": state.reason.value,
        }
        rows.append(row)
    show(rows, output=output, columns=tuple(rows[0]), rows=(tuple(row.values()) for row in rows))


@app.command()
def crash(
    stride: Annotated[int, typer.Option("--stride", min=1, max=1000, help="Take every n-th cut.")] = 1,
    output: Output = Format.TABLE,
) -> None:
    """Cut the power at every durable step of every story, and see that the device lives.

    Example: drupelet sim crash --stride 10
    """
    from drupelet.sim import crash as cuts
    from drupelet.sim.device import Violation

    rows = []
    for name, story in cuts.STORIES.items():
        begun = time.monotonic()
        try:
            found = cuts.every_cut(story, stride=stride)
        except Violation as violation:
            raise Refused(f"an invariant broke: {violation}", where=name) from violation
        seconds = round(time.monotonic() - begun, 1)
        rows.append({"story": name, "durable_steps": found.steps, "cuts": found.cuts, "lost": 0, "seconds": seconds})
    show(rows, output=output, columns=tuple(rows[0]), rows=(tuple(row.values()) for row in rows))
    say(f"{sum(int(str(row['cuts'])) for row in rows)} points, 0 lost")
