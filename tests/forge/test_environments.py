"""Tool environments: what is asked for is pinned, and another pin is another folder."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from drupelet.forge.toolchain.environments import ENVIRONMENTS
from drupelet.forge.toolchain.registry import TOOLS
from drupelet.forge.toolchain.venvs import ToolMissing, ToolVenv


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_everything_is_pinned_and_listed(name: str) -> None:
    venv = ENVIRONMENTS[name]
    assert TOOLS[name] is venv
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in (*venv.requirements, *venv.pins))
    # What is asked for by name is what the pins say too, torch apart, whose build depends on the machine.
    pinned = {pin.lower().replace("_", "-") for pin in venv.pins}
    assert {asked for asked in venv.requirements if not asked.startswith("torch")} <= pinned


def test_another_pin_is_another_folder(tmp_path: Path) -> None:
    venv = ToolVenv(name="a", requirements=("b==1",), pins=("c==1",))
    assert venv.folder(tmp_path) != dataclasses.replace(venv, pins=("c==2",)).folder(tmp_path)
    with pytest.raises(ToolMissing, match="drupelet forge toolchain build a"):
        venv.python(tmp_path)


def test_pins_reach_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(_self: ToolVenv, command: list[str], _log: Path) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1], "bin").mkdir(parents=True)

    monkeypatch.setattr(ToolVenv, "_run", run)
    python = ToolVenv(name="a", requirements=("b==1",), pins=("c==1",)).build(tmp_path)
    assert commands[0][:3] == [sys.executable, "-m", "venv"]
    constraints = Path(commands[1][commands[1].index("-c") + 1])
    assert constraints.read_text() == "c==1\n"
    assert commands[1][-1] == "b==1"
    assert python.name == "python"
