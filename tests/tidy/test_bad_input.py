"""docs/bad-input.md is held to the code: every test it names exists, every code is one there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from drupelet.core import errors
from drupelet.core.states import Reason

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 5


def rows() -> list[list[str]]:
    found = []
    for line in (ROOT / "docs" / "bad-input.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| Input", "| ---")):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_test_of_a_row_exists(row: list[str]) -> None:
    assert len(row) == COLUMNS
    file, _, name = row[-1].partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_code_of_a_row_exists(row: list[str]) -> None:
    families = [getattr(errors, name) for name in vars(errors)]
    exits = {str(kind.exit_code) for kind in families if isinstance(kind, type) and hasattr(kind, "exit_code")}
    statuses = {"200", "400", "404", "408", "409", "413"}
    reasons = {reason.value for reason in Reason} | {"refused"}
    assert set(row[3].split(", ")) <= exits | statuses | reasons | {"130"}


def test_the_page_has_rows() -> None:
    assert len(rows()) > 40
