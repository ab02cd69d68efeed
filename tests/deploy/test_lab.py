"""The lab's page names commands and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from drupelet.cli.main import build

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lab.md").read_text()
WORDS = sorted(set(re.findall(r"(?:^|[`/ ])drupelet ([a-z]+)((?: [a-z]+)?)", PAGE, re.MULTILINE)))
COMMANDS = [(noun, verb.strip()) for noun, verb in WORDS if verb]


def test_the_page_shows_commands() -> None:
    assert ("rollout", "start") in COMMANDS
    assert ("agent", "install") in COMMANDS


@pytest.mark.parametrize(("noun", "verb"), COMMANDS, ids=" ".join)
def test_every_command_exists(noun: str, verb: str) -> None:
    group = getattr(typer.main.get_command(build({noun})), "commands", {})[noun]
    assert verb in group.commands


@pytest.mark.parametrize("option", sorted(set(re.findall(r"drupelet rollout start.*? (--[a-z]+)", PAGE))))
def test_options_of_a_rollout_exist(option: str) -> None:
    command = getattr(typer.main.get_command(build({"rollout"})), "commands", {})["rollout"].commands["start"]
    assert option in {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b((?:src|deploy|models)/[A-Za-z0-9_./{},-]+)", PAGE))))
def test_every_file_exists(path: str) -> None:
    names = re.match(r"(.*)\{(.*)\}(.*)", path)
    paths = [names[1] + part + names[3] for part in names[2].split(",")] if names else [path]
    assert all((ROOT / one).exists() for one in paths)
