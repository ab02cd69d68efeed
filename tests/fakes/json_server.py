"""What stand-ins of update systems share: a loopback server that asks one method and breaks on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any, dict[str, str]]


class JsonServer:
    """Answers on a port of its own until `close`. Subclasses implement `answer`."""

    authorization: ClassVar[str] = "Bearer secret-token"

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.break_next: Callable[[], Answer | bytes] | None = None
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 64 * 1024  # one packet an answer: two would wait for each other's acknowledgement

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                split = urlsplit(self.path)
                world.requests.append((self.command, self.path))
                broken, world.break_next = world.break_next, None
                if broken is not None:
                    said = broken()
                    if isinstance(said, bytes):
                        self.connection.sendall(said)
                        self.close_connection = True
                        return
                    status, value, headers = said
                elif self.headers.get("Authorization") != world.authorization:
                    status, value, headers = 401, {"error": "unauthorized"}, {}
                else:
                    status, value, headers = world.answer(
                        self.command, split.path, dict(parse_qsl(split.query)), body, dict(self.headers)
                    )
                data = b"" if value is None else json.dumps(value).encode()
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (the library's names)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> Answer:
        """Return status, JSON value (None for no body) and headers."""
        raise AssertionError("a stand-in answers")

    def close(self) -> None:
        """Stop and let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def form_file(body: bytes, headers: dict[str, str], field: str) -> bytes:
    """Return a file's bytes out of a multipart form."""
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    for part in body.split(b"--" + boundary):
        head, _, data = part.partition(b"\r\n\r\n")
        if f'name="{field}"'.encode() in head:
            return data.removesuffix(b"\r\n")
    raise AssertionError(f"the form has no {field}")
