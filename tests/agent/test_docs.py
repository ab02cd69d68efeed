"""The agent's docs are held to its code: the diagram, the table, the journal's examples, every setting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from drupelet.agent import config, events, journal, machine
from drupelet.agent.slots import Layout, Sidecar
from drupelet.wire.codec import decode_as
from drupelet.wire.control import Serve

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, kind: str) -> list[str]:
    return [text for found, text in FENCE.findall((DOCS / page).read_text()) if found == kind]


def test_the_diagram_and_the_table_are_the_code() -> None:
    assert blocks("agent.md", "mermaid") == [machine.diagram()]
    assert machine.table() in (DOCS / "agent.md").read_text()


def test_the_journals_examples_are_whole_lines() -> None:
    kinds = [type(journal.entry_of(line.strip().encode())) for line in blocks("formats/journal.md", "json")]
    assert kinds == [journal.Snapshot, journal.Entry]


@pytest.mark.parametrize("kind", get_args(events.AnyEvent))
def test_every_event_is_documented(kind: type[events.Event]) -> None:
    assert f"| `{events.name_of(kind)}` |" in (DOCS / "formats/journal.md").read_text()


def test_the_state_folders_examples_parse() -> None:
    sidecar, serve, *_ = (text.encode() for text in blocks("formats/state-folder.md", "json"))
    assert decode_as(Sidecar, sidecar).held.release == "kiosk/1.1"
    assert len(decode_as(Serve, serve).loads) == 2


def test_every_name_in_the_state_folder_is_documented() -> None:
    said, layout = (DOCS / "formats/state-folder.md").read_text(), Layout(Path("/s"))
    for path in (layout.lock, layout.key, layout.journal, layout.serve, layout.requests, layout.trust, layout.spool):
        assert path.name in said


def test_every_setting_is_documented_with_its_default() -> None:
    said = (DOCS / "formats/agent-config.md").read_text()
    for section in msgspec.structs.fields(config.Config):
        for setting in msgspec.structs.fields(section.type):
            row = re.search(rf"^\| `{section.name}\.{setting.name}` \| (.+?) \| .+ \|$", said, re.MULTILINE)
            assert row, f"{section.name}.{setting.name}"
            if setting.default is not msgspec.NODEFAULT:
                assert row[1] == f"`{json.dumps(msgspec.to_builtins(setting.default))}`"


def test_the_least_configuration_is_enough() -> None:
    (example,) = blocks("formats/agent-config.md", "toml")
    assert config.parse(example.encode(), where="docs").device.id == "kiosk-07"
