"""What an idle agent costs: resident memory and CPU of the real process. `python benchmarks/bench_agent.py`.

The agent runs against a stub fleet on loopback that answers polls every 30 s, the default, with a real director and a
gateway that serves. Counted after it has installed a release and rests. Prints each result beside its target; exits 1
if one is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, the tests' helpers are beside us
# isort: split
from tests.fakes.agent_rig import AgentRig
from tests.fakes.tiny_gguf import write_tiny_gguf

from drupelet.core.states import Mode

RSS_MIB_MAX = 60.0
CPU_PERCENT_MAX = 0.5
POLL_MS = 30_000


def rss_mib(pid: int) -> float:
    """Resident memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """CPU seconds since the process began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=70, help="how long the idle agent is watched")
    seconds = options.parse_args().seconds
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    rig = AgentRig(folder)
    try:
        rig.agent_config.write_text(rig.agent_config.read_text().partition("[metrics]")[0])
        rig.release("1.1", write_tiny_gguf(folder / "m.gguf"))
        rig.start("gateway")
        pid = rig.start("agent").pid
        rig.order(Mode.INSTALL, "1.1")
        rig.wait(state="idle", committed="kiosk/1.1")
        working = rss_mib(pid)
        rig.fleet.poll_after_ms = POLL_MS
        polls = len(rig.fleet.polls)
        time.sleep(1)
        begun, before = time.monotonic(), cpu_s(pid)
        time.sleep(seconds)
        spent = cpu_s(pid) - before
        percent = 100 * spent / (time.monotonic() - begun)
        resident = rss_mib(pid)
        polled = len(rig.fleet.polls) - polls
    finally:
        rig.close()
        shutil.rmtree(folder)
    print(f"resident, after an install   {working:6.1f} MiB")
    print(f"resident, idle               {resident:6.1f} MiB   target at most {RSS_MIB_MAX:g}")
    print(
        f"CPU, idle, {polled} polls in {seconds} s  {percent:6.2f} %     target at most {CPU_PERCENT_MAX:g} of one core"
    )
    sys.exit(int(resident > RSS_MIB_MAX or percent > CPU_PERCENT_MAX))


if __name__ == "__main__":
    main()
