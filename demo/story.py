"""How the demo speaks: acts, steps, a line that moves while something goes on, and a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from demo.processes import DemoFailed

ACCENT = "#c51a4a"


@dataclass(slots=True)
class Story:
    """What is told, and what was seen."""

    console: Console = field(default_factory=lambda: Console(highlight=False, width=None))
    began: float = field(default_factory=time.monotonic)
    seen: list[tuple[str, str]] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    """Rows of the audit log that were told already."""
    _act: str = ""

    def title(self, text: str, under: str) -> None:
        """Say what this is."""
        self.console.print(Panel(f"[bold]{text}[/bold]\n{under}", border_style=ACCENT, expand=False))

    def act(self, number: int, name: str, sentence: str) -> None:
        """Announce an act in a sentence."""
        self._act = f"{number}. {name}"
        self.console.print()
        self.console.print(f"[bold {ACCENT}]Act {number}: {name}[/]  [dim]{self._clock()}[/]")
        self.console.print(f"  {sentence}")

    def step(self, text: str) -> None:
        """Say what happened."""
        self.console.print(f"  [dim]{self._clock()}[/] {text}")

    def check(self, what: str, holds: bool, *, saw: str = "") -> None:
        """Check what must be so; the demo fails where it is not."""
        if not holds:
            raise DemoFailed(f"{self._act}: it must be that {what}, but {saw or 'it is not so'}")
        self.console.print(f"  [dim]{self._clock()}[/] [green]checked[/] {what}" + (f" [dim]({saw})[/]" if saw else ""))
        self.seen.append((self._act, what))

    @contextmanager
    def going_on(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a moving line while something goes on; yields what changes its words."""
        with self.console.status(f"{text} ...", spinner_style=ACCENT) as status:
            yield lambda words: status.update(f"{text}: {words}")

    def summary(self, rows: list[tuple[str, str]], *, page: str) -> None:
        """The picture at the end."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column()
        for name, value in rows:
            table.add_row(name, value)
        took = time.monotonic() - self.began
        self.console.print()
        self.console.print(
            Panel(
                table,
                title=f"[bold {ACCENT}]Drupelet[/]: {len(self.seen)} checks held in {took:.0f} s",
                subtitle=page,
                border_style=ACCENT,
                expand=False,
            )
        )

    def _clock(self) -> str:
        return f"{time.monotonic() - self.began:5.0f} s"
