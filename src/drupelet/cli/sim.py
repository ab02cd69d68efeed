"""`drupelet sim`: run the production decisions in a simulated world."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from drupelet.cli.output import Format, Output, print_json, say, show
from drupelet.core.errors import Refused

if TYPE_CHECKING:
    from drupelet.sim.device import SimDevice

app = typer.Typer()


@app.command()
def run(
    seed: Annotated[int, typer.Option("--seed", help="The first seed; the same seed lives the same life.")] = 1,
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="How many seeds.")] = 1,
    output: Output = Format.TABLE,
) -> None:
    """Let a device, then a fleet under a rollout live through faults drawn by a seed; fails at a broken invariant.

    Example: drupelet sim run --seed 7 --count 100
    """
    from drupelet.sim import crash, rollout
    from drupelet.sim.device import Violation

    told = []
    for each in range(seed, seed + count):
        try:
            device = crash.run(each)
            ending = rollout.run(each)
        except Violation as violation:
            fix = f"see it again: drupelet sim run --seed {each}"
            raise Refused(f"an invariant broke: {violation}", where=f"seed {each}", fix=fix) from violation
        lines = (device_line(device), *ending.lines)
        told.append({"seed": each, "device": lines[0], "rollout": ending.rollout.state.value, "lines": lines})
        if output is Format.TABLE:
            typer.echo("\n  ".join((f"seed {each}", *lines)))
    if output is Format.JSON:
        print_json(told)


def device_line(device: SimDevice) -> str:
    """Return in one sentence what a device lived through."""
    state = device.state
    because = f" ({state.reason.value})" if state.reason.value != "none" else ""
    return (
        f"one device: {state.seq} events, {device.disk.count} durable steps, {device.crashes} power cuts, "
        f"{state.serial} orders; it ends {state.state.value}{because} and serves"
    )


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
