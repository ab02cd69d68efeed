"""The agent's metrics over HTTP: state, throttling counted across restarts, and a port that is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import urllib3
from demo.fake_pi import FakePi

from drupelet.agent.config import MetricsSettings
from drupelet.agent.errors import PortTaken
from drupelet.agent.exposed import SAMPLE_EVERY_S, Exposed
from drupelet.agent.model import DeviceState
from drupelet.durable import PosixDisk
from drupelet.telemetry.metrics import AgentMetrics
from drupelet.telemetry.sensors import PiSensors
from drupelet.telemetry.spool import Spool
from drupelet.telemetry.throttle import ThrottleLog

UNDERVOLTAGE = 'device_throttle_events_total{reason="undervoltage"}'


class Shown:
    """One agent's metrics, its board and its clock."""

    def __init__(self, folder: Path, pi: FakePi, start: Callable[..., Exposed]) -> None:
        self.now = 0.0
        disk = PosixDisk()
        self._spool = Spool(disk, folder / "spool", bytes_max=1 << 20)
        sensors = PiSensors(sys_root=pi.sys_root, proc_root=pi.proc_root, vcgencmd=pi.vcgencmd)
        log = ThrottleLog(disk, folder / "throttling.json", sensors)
        settings = MetricsSettings(enabled=True, port=0)
        self.exposed = start(AgentMetrics(), settings, throttling=log, since=0, clock=lambda: self.now)

    def look(self) -> dict[str, float]:
        self.exposed.follow(DeviceState(), self._spool, answered_ms=0)
        text = urllib3.request("GET", f"http://127.0.0.1:{self.exposed.port}/metrics").data.decode()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"
        }


@pytest.fixture
def start() -> Iterator[Callable[..., Exposed]]:
    with ExitStack() as stack:
        yield lambda *given, **named: stack.enter_context(closing(Exposed(*given, **named)))


def test_throttling_is_counted_now_and_then_and_across_restarts(tmp_path: Path, start: Callable[..., Exposed]) -> None:
    pi = FakePi(tmp_path / "pi")
    shown = Shown(tmp_path, pi, start)
    assert shown.look()[UNDERVOLTAGE] == 0
    pi.throttled(0x10001)
    assert shown.look()[UNDERVOLTAGE] == 0, "not sampled again so soon"
    shown.now += SAMPLE_EVERY_S
    assert shown.look()[UNDERVOLTAGE] == 1
    again = Shown(tmp_path, pi, start)
    assert again.look()[UNDERVOLTAGE] == 1


def test_a_board_that_does_not_tell_costs_nothing_else(tmp_path: Path, start: Callable[..., Exposed]) -> None:
    pi = FakePi(tmp_path / "pi")
    pi.vcgencmd = (str(tmp_path / "missing"),)
    shown = Shown(tmp_path, pi, start).look()
    assert shown[UNDERVOLTAGE] == 0
    assert shown['drupelet_update_state{state="idle"}'] == 1


def test_a_taken_port_is_said(tmp_path: Path, start: Callable[..., Exposed]) -> None:
    first = Shown(tmp_path, FakePi(tmp_path / "pi"), start).exposed
    settings = MetricsSettings(enabled=True, port=first.port)
    with pytest.raises(PortTaken, match=r"metrics\.port"):
        start(AgentMetrics(), settings, throttling=None, since=0, clock=lambda: 0.0)
