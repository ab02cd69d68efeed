"""The whole line with real processes: agent, gateway, llama.cpp children, signed metadata, a depot over HTTP."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.core.states import Mode
from drupelet.wire.orders import Condemned
from tests.fakes.agent_rig import AgentRig
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture
def rig() -> Iterator[AgentRig]:
    # pytest's own folders are too deep for a Unix socket's path.
    folder = Path(tempfile.mkdtemp(prefix="rig"))
    rig = AgentRig(folder)
    try:
        for number, version in enumerate(("1.1", "1.2", "1.3")):
            model = folder / f"{version}.gguf"
            write_tiny_gguf(model, seed=number)
            rig.release(version, model, word="zebra" if version == "1.3" else "")
        rig.start("gateway")
        rig.start("agent")
        yield rig
    finally:
        rig.close()
        shutil.rmtree(folder)


def test_a_device_installs_tries_commits_reverts_and_survives_sigkill(rig: AgentRig) -> None:
    rig.order(Mode.INSTALL, "1.1")
    rig.wait(state="idle", serving="kiosk/1.1", committed="kiosk/1.1")

    canary = rig.order(Mode.CANARY, "1.2")
    rig.wait(state="probation", serial=canary)
    until(lambda: rig.status()["pairs"] >= 1, timeout_s=20, what="a pair")
    rig.stop("agent", signal.SIGKILL)
    rig.start("agent")
    rig.order(Mode.COMMIT, "1.2")
    rig.wait(state="idle", serving="kiosk/1.2", committed="kiosk/1.2")

    rig.order(Mode.CANARY, "1.3")
    rig.wait(state="failed", reason="canonical_failed", serving="kiosk/1.2")

    gone = Condemned(release="kiosk/1.2", manifest=rig.targets["1.2"].sha256.text, reason="slow")
    # The trial of 1.3 took the slot that held 1.1: there is nothing to go back to, and that is said.
    rig.order(Mode.REVERT, "1.1", condemned=(gone,))
    rig.wait(state="failed", reason="no_other_slot", serving="kiosk/1.2")

    told = rig.json("agent", "history", "--last", "200")
    assert {"trial_passed", "committed", "condemning", "stuck"} <= {event["event"] for event in told}
    status = rig.json("agent", "status")
    assert status["running"]
    assert "condemned" not in status
    assert "no_other_slot" in rig.json("agent", "why")["says"]
    refused = rig.drupelet("agent", "rollback", "--yes", "--config", str(rig.agent_config), fails=True)
    assert refused.returncode == 5
    assert "no_other_slot" in refused.stderr

    second = rig.drupelet("agent", "run", "--config", str(rig.agent_config), fails=True)
    assert second.returncode == 5
    assert f"pid {rig.processes['agent'].pid}" in second.stderr


def test_a_local_rollback_works_with_and_without_a_running_agent(rig: AgentRig) -> None:
    for version in ("1.1", "1.2"):
        rig.order(Mode.INSTALL, version)
        rig.wait(state="idle", serving=f"kiosk/{version}", committed=f"kiosk/{version}")
    assert 'drupelet_update_total{outcome="committed",reason="none"} 2.0' in rig.metrics()
    assert 'drupelet_update_state{state="idle"} 1.0' in rig.metrics()
    rollback = ("agent", "rollback", "--yes", "--reason", "test", "--config", str(rig.agent_config))
    rig.drupelet(*rollback)
    rig.wait(state="failed", reason="operator", serving="kiosk/1.1")
    rig.stop("agent")
    rig.drupelet(*rollback)
    assert rig.json("agent", "history", "--last", "1")[0]["reason"] == "operator"
    rig.start("agent")
    rig.wait(state="failed", serving="kiosk/1.2", committed="kiosk/1.2")
    rig.drupelet("agent", "hold", "--config", str(rig.agent_config))
    until(lambda: rig.fleet.polls[-1].status.held, timeout_s=10, what="the hold to be told")
