from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.telemetry.sensors import PiSensors
from tests.fakes.fake_pi import FakePi


@pytest.fixture
def pi(tmp_path: Path) -> FakePi:
    return FakePi(tmp_path / "a pi")


@pytest.fixture
def sensors(pi: FakePi) -> PiSensors:
    return PiSensors(sys_root=pi.sys_root, proc_root=pi.proc_root, vcgencmd=pi.vcgencmd)
