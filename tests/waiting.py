"""Waiting for processes in tests: poll with a deadline, never sleep for a guessed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(predicate: Callable[[], T], *, timeout_s: float, what: str, every_s: float = 0.02) -> T:
    """Return the first true result of `predicate`, or fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (result := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        time.sleep(every_s)
    return result
