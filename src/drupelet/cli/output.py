"""How every command answers: a table for people or JSON for programs, and one line for an error.

Exit codes: 0 done; 1 anything else; 2 bad input; 3 not allowed; 4 not found; 5 conflict; 6 unavailable, try later;
7 untrusted; 8 refused by a check; 130 interrupted.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated, Any

import msgspec
import typer

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Format(Enum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="Print a table or JSON.", show_default=True)]


def print_json(value: Any) -> None:
    """Print `value` (builtins, structs, enums) as indented JSON."""
    print(json.dumps(msgspec.to_builtins(value, str_keys=True), indent=2, sort_keys=True))


def plain(text: str) -> str:
    """Return text that comes from elsewhere without what a terminal obeys: control characters become visible."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows under column names, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Folded, not cut: a name or a digest that ends in dots cannot be copied.
    heads = [Column(name, overflow="fold") for name in columns]
    table = Table(*heads, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # As text, not as markup: what devices, servers and files say must not colour, hide or break a table.
        table.add_row(*(Text(plain(str(cell))) for cell in row))
    Console().print(table)


def show(value: Any, *, output: Format, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print `value` as JSON, or `rows` as a table, as the user asked."""
    if output is Format.JSON:
        print_json(value)
    else:
        print_table(columns, rows)


def say(text: str) -> None:
    """Tell the user something beside the answer, on standard error, so that `-o json` stays clean."""
    print(plain(text), file=sys.stderr)
