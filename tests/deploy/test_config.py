"""The example files are read by the very parsers, and what they call a default is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drupelet.agent import config as agent
from drupelet.fleet import config as fleet
from drupelet.gateway import config as gateway


def fleet_parse(text: bytes, *, where: str) -> msgspec.Struct:
    return fleet.parse_config(text, where=Path("/etc/drupelet") / where)


FOLDER = Path(__file__).parents[2] / "deploy" / "config"
PARSERS = {"agent.toml": agent.parse, "gateway.toml": gateway.parse, "fleet.toml": fleet_parse}
SHOWN_ONLY = {'windows = ["02:00-05:00"]'}
"""Examples of what is empty by default."""


def uncommented(text: str) -> str:
    """The file with its commented settings in force; comments in words stay comments."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"# (\w+ = .*)", line)
        if match and not any(match[1].startswith(shown) for shown in SHOWN_ONLY):
            line = match[1]
        lines.append(line)
    return "\n".join(lines)


def parsed(name: str, text: str) -> Any:
    return msgspec.structs.asdict(PARSERS[name](text.encode(), where=name))


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_an_example_is_accepted_and_its_comments_show_the_defaults(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert uncommented(text) != text
    assert parsed(name, uncommented(text)) == parsed(name, text)


def test_every_example_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.toml")} == set(PARSERS)
