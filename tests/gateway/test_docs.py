"""docs/gateway.md and docs/formats/control-socket.md are held to the code."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from drupelet.gateway.machine import TABLE
from drupelet.wire.codec import decode_as
from drupelet.wire.control import Answer, Answered, Asked, Question, Serve

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = re.findall(r"^```json\n(.*?)\n```", (DOCS / "formats" / "control-socket.md").read_text(), re.M | re.S)


def table() -> str:
    """The machine's table as the page shows it."""
    rows = ["| state | event | next state |", "| --- | --- | --- |"]
    for (state, event), (after, _) in TABLE.items():
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", event.__name__).lower()
        rows.append(f"| {state.value} | {words} | {after.value} |")
    return "\n".join(rows)


def test_the_page_shows_the_machines_table() -> None:
    assert table() in (DOCS / "gateway.md").read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text[:30])
def test_every_example_is_understood(example: str) -> None:
    kind = Question if '"verb"' in example[:10] else Answer if '"answer"' in example[:12] else Serve
    decoded = decode_as(kind, example.encode())  # type: ignore[arg-type]
    assert isinstance(decoded, msgspec.Struct)


def test_every_question_and_answer_has_an_example() -> None:
    text = "\n".join(EXAMPLES)
    for kind in (*Asked.__subclasses__(), *Answered.__subclasses__()):
        field, tag = kind.__struct_config__.tag_field, kind.__struct_config__.tag
        assert f'"{field}": "{tag}"' in text


def test_every_setting_and_code_of_the_page_exists() -> None:
    page = (DOCS / "gateway.md").read_text()
    sources = "".join(path.read_text() for path in (DOCS.parent / "src/drupelet/gateway").glob("*.py"))
    for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page):
        assert word in sources, word
