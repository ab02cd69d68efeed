"""Style that a program can see: lengths, purity, leftovers, and text that means nothing on a user's machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "drupelet"
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

PURE_NAMES = {"machine.py", "cohort.py", "assess.py", "plan.py", "selector.py", "crossover.py", "admission.py"}
IMPURE = {
    "asyncio", "http", "io", "logging", "os", "secrets", "shutil", "signal", "socket", "sqlite3", "subprocess",
    "tempfile", "threading", "time", "urllib", "urllib3", "aiohttp", "sqlalchemy",
}  # fmt: skip
# Pieces of words, so that this file does not find itself.
LEFTOVERS = re.compile(
    "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error", "place" + "holder"])
)
ELSEWHERE = re.compile(
    "|".join(
        [r"/wo" + "rk/", r"/fa" + "rm/", r"\.\./sha" + "red", "py" + r"pi\.org", "npm" + r"js\.", r"deb\.deb" + "ian"]
    )
)


def tracked(*patterns: str) -> list[Path]:
    """Files git knows or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT, check=True, capture_output=True
    )
    return [p for line in listing.stdout.decode().splitlines() if (p := ROOT / line).is_file()]


def python_files() -> list[Path]:
    return tracked("*.py")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def pure_modules() -> list[Path]:
    rooms = [*(SRC / "core").rglob("*.py"), *(SRC / "gate").rglob("*.py")]
    return rooms + [path for path in SRC.rglob("*.py") if path.name in PURE_NAMES]


def test_modules_and_functions_are_short() -> None:
    long = []
    for path in python_files():
        text = path.read_text()
        if text.count("\n") > MODULE_LINES_MAX:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        if "src" in path.parts:
            for function in functions(ast.parse(text)):
                lines = (function.end_lineno or function.lineno) - function.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {lines} lines")
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", pure_modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_pure_modules_import_nothing_that_acts(path: Path) -> None:
    assert not imported(ast.parse(path.read_text())) & IMPURE


def test_the_clock_is_never_read_in_pure_modules() -> None:
    calls = re.compile(r"\b(datetime\.(now|utcnow)|date\.today)\(|\brandom\.(random|choice|shuffle|randint|sample)\(")
    found = [str(p) for p in pure_modules() if calls.search(p.read_text())]
    assert not found


def test_nothing_is_left_over() -> None:
    found = [str(p.relative_to(ROOT)) for p in tracked("src/*", "demo/*", "docs/*") if LEFTOVERS.search(_text(p))]
    assert not found


def test_text_speaks_of_the_product_alone() -> None:
    found = [str(p.relative_to(ROOT)) for p in tracked() if ELSEWHERE.search(_text(p))]
    assert not found


def test_public_things_have_docstrings() -> None:
    bare = []
    for path in (p for p in python_files() if "src" in p.parts):
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(ROOT)}: module")
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not bare, "\n".join(bare)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""
