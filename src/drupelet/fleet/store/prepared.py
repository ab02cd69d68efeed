"""Statements compiled once, for the one path where SQLAlchemy's work per row would be a third of the cost.

Only plain values pass here (text, numbers, bytes, booleans), which both drivers take as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement


class Prepared:
    """One statement for one dialect, run for many rows at once."""

    def __init__(self, statement: ClauseElement, dialect: Dialect, *, columns: Sequence[str] | None = None) -> None:
        options: dict[str, Any] = {"column_keys": list(columns)} if columns else {}
        compiled: Any = statement.compile(dialect=dialect, **options)
        self._sql = str(compiled)
        self._values = itemgetter(*compiled.positiontup) if compiled.positiontup else None

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for every row; nothing happens without rows."""
        if rows:
            values: Any = list(map(self._values, rows)) if self._values else list(rows)
            connection.exec_driver_sql(self._sql, values)


def insert_ignore(table: Table, dialect: Dialect, *, columns: Sequence[str]) -> Prepared:
    """Return an insertion that leaves rows alone that are there already."""
    made = sqlite if dialect.name == "sqlite" else postgresql
    return Prepared(made.insert(table).on_conflict_do_nothing(), dialect, columns=columns)
