"""What running a file must offer, so that one evaluation judges every format.

A runner is to a file format what the gateway's back end is on a device: it starts the file, asks it, and stops it. Not
every format can do everything: a runner answers None where it cannot, and the evaluation then says "not judged" rather
than guess. All calls block; a session belongs to the thread that started it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from drupelet.core.names import Digest
from drupelet.engine.client import Answer
from drupelet.engine.logits import Logits

Messages = Sequence[Mapping[str, str]]
"""What a chat consists of: `role` and `content` of each turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to run. `digest` is checked before a byte is loaded, where it is given."""

    model: Path
    alias: str
    context_tokens: int
    threads: int = 1
    digest: Digest | None = None
    adapters: tuple[Path, ...] = ()
    """Adapters applied to the model, in order; a runner that knows none raises `BadInput`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The texts of the tokens that begin and end a text; empty where there is none, None where the file is silent."""

    bos: str | None
    eos: str | None


class Session(Protocol):
    """One running model. Leaving its `with` block stops it."""

    @property
    def start_ms(self) -> float:
        """From spawn to ready, in milliseconds."""
        ...

    def ask(self, messages: Messages, *, tokens_max: int) -> Answer:
        """Return the answer at temperature 0. Raises `EngineAnswered` for a refusal, `EngineUnreachable`."""
        ...

    def tokenize(self, text: str, *, special: bool = True) -> list[int] | None:
        """Return the tokens of `text`, with begin token and markers if `special`; None where it cannot be known."""
        ...

    def render(self, messages: Messages) -> str | None:
        """Return the text that the chat template makes of `messages`, or None."""
        ...

    def special_tokens(self) -> SpecialTokens | None:
        """Return how the file itself begins and ends a text, or None."""
        ...

    def memory_bytes_peak(self) -> int:
        """Return the most resident memory so far, in bytes."""
        ...

    def close(self) -> None:
        """Stop it. Harmless if it is gone."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Runner(Protocol):
    """Runs files of one format."""

    @property
    def file_format(self) -> str:
        """As the manifest's `file_format` writes it."""
        ...

    @property
    def tool(self) -> str:
        """What runs it, with its version, such as `xllamacpp 2026.10.11549`."""
        ...

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> Session:
        """Start the file and return once it answers. Raises `StartFailed` with the reason.

        `runtime_folder` is short enough for a Unix socket's path.
        """
        ...

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits | None:
        """Write the logits of every position of `sequences` to `out`, or return None where the format gives none.

        Raises `StartFailed` if the file does not run, `BadInput` for an empty or too long sequence.
        """
        ...
