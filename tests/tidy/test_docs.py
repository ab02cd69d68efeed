"""Docs are held to the code: every example in docs/formats parses, every verb has an example, links lead somewhere."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import drupelet.wire
from drupelet.cli.main import NOUNS, VERBS, build
from drupelet.wire.codec import Message, decode

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
FORMAT = re.compile(r'"format":\s*"([^"]+)"')
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)")


def messages() -> dict[str, type[Message]]:
    """Every message of the wire by its format."""
    for module in pkgutil.iter_modules(drupelet.wire.__path__):
        importlib.import_module(f"drupelet.wire.{module.name}")
    return {kind.FORMAT: kind for kind in Message.__subclasses__()}


def examples() -> list[tuple[str, str]]:
    found = []
    for path in sorted((ROOT / "docs" / "formats").glob("*.md")):
        found += [(path.name, block) for block in FENCE.findall(path.read_text()) if FORMAT.search(block)]
    return found


def test_every_message_has_an_example() -> None:
    shown = {match.group(1) for _, block in examples() if (match := FORMAT.search(block))}
    assert set(messages()) <= shown


@pytest.mark.parametrize(("page", "block"), examples(), ids=[f"{p}-{i}" for i, (p, _) in enumerate(examples())])
def test_examples_parse(page: str, block: str) -> None:
    match = FORMAT.search(block)
    assert match
    kind = messages().get(match.group(1))
    if kind is not None:
        decode(kind, block.encode(), where=page)


def commands() -> list[list[str]]:
    """Every verb, as the words that name it."""
    root = typer.main.get_command(build({*NOUNS, *VERBS}))
    found: list[list[str]] = []

    def walk(command: object, words: list[str]) -> None:
        below = getattr(command, "commands", None)
        if below:
            for name, inner in below.items():
                walk(inner, [*words, name])
        else:
            found.append(words)

    walk(root, [])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_verb_has_help_with_an_example(words: list[str]) -> None:
    result = CliRunner().invoke(build({*NOUNS, *VERBS}), [*words, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken
