"""Asking a gateway over its control socket: blocking, one question at a time. For the command line and for tests."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType

from drupelet.gateway.errors import GatewayUnreachable
from drupelet.wire.codec import decode_as, encode
from drupelet.wire.control import LINE_BYTES_MAX, Answer, Question


class ControlClient:
    """A connection to the control socket. Raises `GatewayUnreachable`, and `Malformed` for a strange answer."""

    def __init__(self, path: Path, *, timeout_ms: int = 10_000) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_ms / 1000)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            why = error.strerror or str(error)
            raise GatewayUnreachable(
                f"no gateway answers: {why}", where=str(path), fix="is `drupelet gateway run` running, as this user?"
            ) from error
        self._stream = self._socket.makefile("rb")

    def ask(self, question: Question) -> Answer:
        """Return the answer to `question`."""
        try:
            self._socket.sendall(encode(question) + b"\n")
            line = self._stream.readline(LINE_BYTES_MAX + 1)
        except OSError as error:
            raise GatewayUnreachable(f"the gateway broke off: {error}", where=str(self._path)) from error
        if not line.endswith(b"\n"):
            raise GatewayUnreachable("the gateway broke off", where=str(self._path))
        answer: Answer = decode_as(Answer, line)  # type: ignore[arg-type]
        return answer

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
