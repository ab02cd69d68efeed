"""`make demo`: five acts on this machine, each checked; then the page stays up until Ctrl-C.

make demo                    keep the page up at the end
make demo ARGS=--exit        stop at the end
make demo ARGS="--keep"      keep the folder with logs, keys and state
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from demo.acts import Stage
from demo.footprint import Footprint
from demo.processes import DemoFailed
from demo.story import Story
from demo.world import World

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--exit", action="store_true", help="stop after the last act")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs, keys and state")
    parser.add_argument("--port", type=int, default=0, help="port of the page; 0 takes a free one")
    parser.add_argument("--acts", type=int, default=5, choices=range(1, 6), help="stop after this act")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="drupelet-demo-"))
    world, story = World(folder, ROOT, page_port=given.port), Story()
    code = 1
    try:
        _play(Stage(world, story), acts=given.acts)
        code = 0
        if not given.exit:
            story.step(f"the page stays up at [bold]{world.page}[/] until Ctrl-C")
            threading.Event().wait()
    except DemoFailed as failed:
        story.console.print(f"\n[bold red]The demo failed.[/] {failed}")
    except KeyboardInterrupt:
        story.console.print("\nStopping.")
        code = 0 if code == 0 else 130
    finally:
        world.network.stop()
        world.household.stop_all()
        if given.keep or code == 1:
            story.console.print(f"Logs, keys and state: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _play(stage: Stage, *, acts: int) -> None:
    story = stage.story
    story.title(
        "Drupelet: five devices, five acts",
        "Real agents, gateways and llama.cpp children on this machine; the devices' sensors are simulated.",
    )
    footprint = Footprint()
    plays = (stage.act_one, stage.act_two, stage.act_three, stage.act_four, stage.act_five)
    for play in plays[:acts]:
        play()
    stage.load.stop()
    footprint.stop()
    total = stage.load.totals()
    story.summary(
        [
            ("requests", f"{total.asked} asked, {total.failed} failed, {total.right / max(1, total.asked):.1%} right"),
            ("memory", f"{footprint.most_bytes / 2**30:.2f} GiB at most, all processes together"),
            *stage.verdicts.items(),
            *([("attacker", f"{stage.attacks} attacks on five devices, all refused")] if stage.attacks else []),
        ],
        page=stage.world.page,
    )


if __name__ == "__main__":
    sys.exit(main())
