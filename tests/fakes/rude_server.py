"""A web server that misbehaves on request: what stands between a device and its depot in the field."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANNERS = (
    "good",
    "ignores range",
    "truncated",
    "longer",
    "endless",
    "endless chunked",
    "ends early chunked",
    "cut",
    "portal",
    "redirect",
    "encoded",
    "wrong range",
    "flipped",
    "busy",
    "gone",
    "wants a token",
    "silent",
)
PIECE = 64 * 1024


@dataclass
class RudeServer:
    """Serves `body` at every address, in the manner named; remembers what was asked."""

    body: bytes
    manner: str = "good"
    cut_after: int = 0
    ranges: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.ranges.append(request.headers.get("Range", ""))
        self.tokens.append(request.headers.get("Authorization", ""))
        match self.manner:
            case "portal":
                self._send(request, 200, b"<html>Log in</html>", {"Content-Type": "text/html; charset=utf-8"})
            case "redirect":
                self._send(request, 302, b"", {"Location": "http://portal.invalid/"})
            case "busy":
                self._send(request, 503, b"busy")
            case "gone":
                self._send(request, 404, b"gone")
            case "wants a token":
                self._send(request, 401, b"who are you?")
            case "silent":
                self.stopping.wait()
            case "endless":
                request.send_response(200)
                request.end_headers()
                self._pour(request, chunked=False)
            case "endless chunked":
                self._start_chunked(request)
                self._pour(request, chunked=True)
            case "ends early chunked":
                self._start_chunked(request)
                self._chunk(request, self.body[: len(self.body) // 2])
                self._chunk(request, b"")
            case _:
                self._serve(request)

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = self.body
        if self.manner == "truncated":
            body = body[: len(body) // 2]
        if self.manner == "longer":
            body += b"more"
        if self.manner == "flipped":
            body = body[:-1] + bytes([body[-1] ^ 1])
        start = int(self.ranges[-1][len("bytes=") : -1]) if self.ranges[-1] else 0
        headers = {"Content-Encoding": "gzip"} if self.manner == "encoded" else {}
        if start >= len(body) > 0:
            self._send(request, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
        elif start and self.manner != "ignores range":
            first = start - 1 if self.manner == "wrong range" else start
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            self._send(request, 206, body[first:], headers)
        else:
            self._send(request, 200, body, headers)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **(headers or {})}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.manner == "cut":
            request.wfile.write(body[: self.cut_after])
            request.close_connection = True
        else:
            request.wfile.write(body)

    def _start_chunked(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()

    def _chunk(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _pour(self, request: BaseHTTPRequestHandler, *, chunked: bool) -> None:
        """Send the body, then more, until the client has had enough."""
        data = self.body
        while not self.stopping.is_set():
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                if chunked:
                    self._chunk(request, piece)
                else:
                    request.wfile.write(piece)
            data = b"x" * PIECE


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is expected here."""


@contextmanager
def rude_server(body: bytes, manner: str = "good") -> Iterator[RudeServer]:
    """Run a server on a free loopback port."""
    rude = RudeServer(body, manner)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            rude.respond(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = _QuietServer(("127.0.0.1", 0), Handler)
    rude.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield rude
    finally:
        rude.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
