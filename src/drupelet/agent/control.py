"""The agent's side of the gateway's control socket.

Quick questions share one connection; each slow one has its own, so that neither a load nor a trial keeps the agent
from asking how the children are. Every wait is bounded; a broken connection is made anew at the next question.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from drupelet.agent.errors import GatewaySilent
from drupelet.core.errors import BadInput
from drupelet.wire.codec import decode_as, encode
from drupelet.wire.control import LINE_BYTES_MAX, Answer, Drain, Load, Question, Trial

QUICK_MS = 5_000
"""A question that is answered at once: longer means that the gateway hangs."""
SLACK_MS = 30_000
"""Beside what a slow question says it may take: hashing the file, starting and ending children."""


def patience_ms(question: Question) -> int:
    """Return how long the answer to a question may take."""
    if isinstance(question, Load):
        # Hashing at 20 MB/s, a slow card, and up to 8 GB are within this.
        return question.load_ms_max + 400_000
    if isinstance(question, Trial):
        return len(question.prompts) * question.answer_ms_max + SLACK_MS
    if isinstance(question, Drain):
        return question.timeout_ms + SLACK_MS
    return 60_000 + SLACK_MS


class _Line:
    """One connection: a question out, a line in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(QUICK_MS / 1000)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self.close()
            raise GatewaySilent(
                f"no gateway answers: {error.strerror or error}", where=str(path), fix="is the gateway running?"
            ) from error

    def send(self, question: Question) -> None:
        """Send a question."""
        try:
            self._socket.sendall(encode(question) + b"\n")
        except OSError as error:
            raise GatewaySilent(f"the gateway broke off: {error}", where=str(self._path)) from error

    def receive(self, wait_ms: int) -> Answer | None:
        """Return the answer, or None if it is not there in time."""
        deadline = time.monotonic() + wait_ms / 1000
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._socket], [], [], max(0.0, left))
            if not ready:
                return None
            try:
                data = self._socket.recv(1 << 18)
            except OSError as error:
                raise GatewaySilent(f"the gateway broke off: {error}", where=str(self._path)) from error
            if not data:
                raise GatewaySilent("the gateway broke off", where=str(self._path))
            self._buffer += data
            if len(self._buffer) > LINE_BYTES_MAX:
                raise GatewaySilent(f"an answer of more than {LINE_BYTES_MAX} bytes", where=str(self._path))
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        try:
            return decode_as(Answer, line, where=str(self._path))  # type: ignore[arg-type]
        except BadInput as error:
            raise GatewaySilent(f"an answer that is none: {error.what}", where=str(self._path)) from error

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class SocketAsking:
    """A slow question on a connection of its own. Implements `effects.Asking`."""

    def __init__(self, path: Path, question: Question, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._verb = type(question).__name__.lower()
        self._where = str(path)
        self._deadline = monotonic() + patience_ms(question) / 1000
        self._line = _Line(path)
        try:
            self._line.send(question)
        except GatewaySilent:
            self._line.close()
            raise

    def answer(self, wait_ms: int) -> Answer | None:
        """Return the answer, or None if it is not there within `wait_ms`."""
        answer = self._line.receive(wait_ms)
        if answer is None and self._monotonic() > self._deadline:
            raise GatewaySilent(f"{self._verb} is not answered", where=self._where, fix="restart the gateway")
        return answer

    def close(self) -> None:
        """Hang up; the gateway goes on with what it was asked."""
        self._line.close()


class SocketGateway:
    """Implements `effects.Gateway` over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line: _Line | None = None

    def ask(self, question: Question) -> Answer:
        """Ask on the shared connection; one that broke while it lay idle is replaced once."""
        for fresh in (self._line is None, True):
            line = self._line if self._line is not None else _Line(self._path)
            self._line = line
            try:
                line.send(question)
                answer = line.receive(QUICK_MS)
            except GatewaySilent:
                self.close()
                if fresh:
                    raise
                continue
            if answer is not None:
                return answer
            self.close()
            raise GatewaySilent(f"no answer within {QUICK_MS} ms", where=str(self._path), fix="restart the gateway")
        raise GatewaySilent("the gateway broke off", where=str(self._path))

    def begin(self, question: Question) -> SocketAsking:
        """Ask on a connection of its own."""
        return SocketAsking(self._path, question)

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None
