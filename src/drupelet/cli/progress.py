"""Showing progress on a terminal, and plain lines where there is none."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Bar:
    """A bar on standard error while variants are written, and a line for each step of the evaluation."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._console = console
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def bytes_done(self, doing: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of the variant in hand are written."""
        if self._task is None:
            self._task = self._progress.add_task(doing, total=total)
        self._progress.update(self._task, description=doing, completed=done, total=total)

    def doing(self, what: str) -> None:
        """Say what is being done now."""
        self._console.print(f"{what} ...", highlight=False)


class StepBar:
    """A bar of steps, such as files to compile; where there is no terminal, a line for every tenth of them."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._terminal = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._terminal,
        )
        self._task: TaskID | None = None
        self._tenth = -1

    def __enter__(self) -> StepBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def steps_done(self, doing: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps are done, `doing` being the last of them."""
        if self._task is None:
            self._task = self._progress.add_task(doing, total=total)
        self._progress.update(self._task, description=doing[:40], completed=done, total=total)
        tenth = 10 * done // max(total, 1)
        if not self._terminal and tenth != self._tenth:
            self._tenth = tenth
            self._console.print(f"[{done}/{total}] {doing}", highlight=False, markup=False)

    def doing(self, what: str) -> None:
        """Say what is being done now."""
        self._console.print(f"{what} ...", highlight=False)
