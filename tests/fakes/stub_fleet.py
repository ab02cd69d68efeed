"""A fleet server of a hundred lines on loopback: enrolment, tokens, polls, and files under `/`.

It checks signatures and tokens as the real one does, so that a device's link can be tested without server code.
"""

from __future__ import annotations

import secrets
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.device_api import (
    Challenge,
    ChallengeRequest,
    EnrolReply,
    EnrolRequest,
    PollReply,
    PollRequest,
    TokenReply,
    TokenRequest,
    challenge_bytes,
    enrolment_bytes,
)


class StubFleet:
    """One server; use as a context. What it got is in its attributes."""

    def __init__(self) -> None:
        self.approve_at_once = True
        self.approved: set[str] = set()
        self.enrolled: dict[str, EnrolRequest] = {}
        self.tokens: set[str] = set()
        self.polls: list[PollRequest] = []
        self.files: dict[str, bytes] = {}
        """Served under their path, such as `/metadata/1.root.json`; director files need a token."""
        self.depot: Path | None = None
        """A folder served under `/depot/`."""
        self.packed = False
        self.garbage = b""
        self.poll_after_ms = 1_000
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "deflate":
                    body, stub.packed = zlib.decompress(body), True
                status, answer = stub._answer(self.path, body, self.headers.get("Authorization", ""))
                self._send(status, answer)

            def do_GET(self) -> None:
                found = stub._file(self.path)
                self._send(200 if found is not None else 404, found or b"")

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> StubFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _file(self, path: str) -> bytes | None:
        if self.depot is not None and path.startswith("/depot/"):
            file = self.depot / path.removeprefix("/depot/")
            return file.read_bytes() if file.is_file() else None
        return self.files.get(path)

    def _answer(self, path: str, body: bytes, authorization: str) -> tuple[int, bytes]:
        match path.removeprefix("/device/v1/"):
            case "challenge":
                decode(ChallengeRequest, body)
                return _ok(Challenge(challenge=secrets.token_hex(16)))
            case "token":
                return self._token(decode(TokenRequest, body))
            case "enrol":
                return self._enrol(decode(EnrolRequest, body))
            case "poll" if authorization.removeprefix("Bearer ") in self.tokens:
                request = decode(PollRequest, body)
                self.polls.append(request)
                if self.garbage:
                    return 200, self.garbage
                seqs = [event.seq for event in request.events]
                windows = [window.seq for window in request.windows]
                return _ok(
                    PollReply(
                        poll_after_ms=self.poll_after_ms,
                        events_taken=max(seqs, default=0),
                        windows_taken=max(windows, default=0),
                    )
                )
        return 401, b'{"what":"a bearer token is needed"}'

    def _token(self, request: TokenRequest) -> tuple[int, bytes]:
        known = self.enrolled.get(request.device)
        data = challenge_bytes(request.device, request.challenge)
        if known is None or not _signed(known.public_key, request.signature, data):
            return 401, b'{"what":"the signature is not of this device\'s key"}'
        if request.device not in self.approved:
            return 403, b'{"what":"the device is pending"}'
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return _ok(TokenReply(token=token, expires_in_ms=600_000))

    def _enrol(self, request: EnrolRequest) -> tuple[int, bytes]:
        assert _signed(request.public_key, request.signature, enrolment_bytes(request.device, request.public_key))
        known = self.enrolled.setdefault(request.device, request)
        if known.public_key != request.public_key:
            return 409, b'{"what":"this device id is enrolled with another key"}'
        if self.approve_at_once:
            self.approved.add(request.device)
        return _ok(EnrolReply(state="approved" if request.device in self.approved else "pending"))


def _ok(message: Message) -> tuple[int, bytes]:
    return 200, encode(message)


def _signed(public_hex: str, signature_hex: str, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(bytes.fromhex(signature_hex), data)
    except InvalidSignature:
        return False
    return True
