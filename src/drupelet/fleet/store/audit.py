"""The audit log: who did what to what, when and why. Rows are added and never changed."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from drupelet.fleet.store.schema import audit

REASON_LENGTH_MAX = 2000
SYSTEM = "fleet"


def clean(text: str, length_max: int = REASON_LENGTH_MAX) -> str:
    """Return the text without control characters and cut: PostgreSQL takes no NUL, and a log line is one line."""
    if len(text) <= length_max and text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text[:length_max])


def record(
    connection: Connection, *, at: int, actor: str, action: str, subject: str, reason: str = "", **detail: Any
) -> None:
    """Add a row in the caller's transaction, so that what is decided and what is logged are one."""
    connection.execute(
        insert(audit).values(
            at=at,
            actor=clean(actor, 128),
            action=action,
            subject=clean(subject, 128),
            reason=clean(reason),
            detail_json=msgspec.json.encode(detail),
        )
    )
