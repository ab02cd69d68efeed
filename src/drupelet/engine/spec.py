"""What an inference child is told, what it reports, and how it may fail.

DrupeletError (core)
`- EngineError            (Unavailable) the child does not do what was asked
   |- StartFailed         it never became ready; `reason` and `exit` say how it ended
   |- EngineUnreachable   it does not answer on its socket, or not in time
   `- EngineAnswered      it answered with an HTTP status other than 200; `status` and `kind` say which
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import BadInput, Unavailable
from drupelet.core.names import Digest
from drupelet.core.states import ExitReason

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` of Linux holds 108 bytes with the closing zero (unix(7))."""

CONTEXT_TOKENS_MAX = 1 << 20
PARALLEL_MAX = 64
THREADS_MAX = 256


class EngineError(Unavailable):
    """The inference child does not do what was asked."""


class EngineUnreachable(EngineError):
    """No answer on the socket, or not in time."""


class EngineAnswered(EngineError):
    """An HTTP status other than 200. `kind` is llama.cpp's error type, such as `exceed_context_size_error`."""

    def __init__(self, what: str, *, status: int, kind: str, where: str = "") -> None:
        super().__init__(what, where=where)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One inference child. Sizes in bytes, times in milliseconds, contexts in tokens."""

    model: Path
    alias: str
    """The model's name in answers, such as `kiosk`; never its path."""
    context_tokens: int
    """For each slot; the child keeps `context_tokens * parallel` in its cache."""
    parallel: int = 1
    threads: int = 1
    memory_bytes_max: int | None = None
    """Resident bytes past which the child is killed; None leaves it to the service manager's limit."""
    digest: Digest | None = None
    """What the model file must hash to; checked by the child on the very descriptor it loads from."""
    adapters: tuple[Path, ...] = ()
    """LoRA adapters (GGUF) applied to the model, each whole."""
    nice: int = 0
    server: Path | None = None
    """A `llama-server` to run (see `levels.find`); None takes the library `xllamacpp`, which holds the same server."""
    start_ms_max: int = 120_000
    """From spawn to the first warm-up token. 8 GB from an SD card at 90 MB/s take 90 s."""
    health_ms_max: int = 30_000
    """Without one health answer for this long the child is hung. A long prompt never blocks health answers."""
    watch_interval_ms: int = 1_000
    """How often memory and health are looked at."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("context_tokens", self.context_tokens, 16, CONTEXT_TOKENS_MAX),
            ("parallel", self.parallel, 1, PARALLEL_MAX),
            ("threads", self.threads, 1, THREADS_MAX),
            ("nice", self.nice, 0, 19),
        ):
            if not low <= value <= high:
                raise BadInput(f"{name} is {value}", where="inference child", fix=f"use {low} to {high}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a child answers: a Unix socket in a folder that only this user may enter."""

    socket: Path

    @property
    def base_url(self) -> str:
        """The URL to use with a client that dials `socket`, e.g. `aiohttp.UnixConnector(path=str(address.socket))`."""
        return "http://engine"

    def __str__(self) -> str:
        return f"unix:{self.socket}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a child ended: the word for metrics, and the sentence for people."""

    reason: ExitReason
    words: str
    code: int | None = None
    """Exit status, if it exited by itself."""
    signal: int | None = None
    """Signal number, if a signal ended it."""


class StartFailed(EngineError):
    """The child never became ready."""

    def __init__(self, ended: Exit, *, where: str = "", fix: str = "") -> None:
        super().__init__(ended.words, where=where, fix=fix)
        self.exit = ended

    @property
    def reason(self) -> ExitReason:
        """Why, in one word."""
        return self.exit.reason
