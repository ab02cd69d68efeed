"""JSON over HTTP to somebody else's server: bounded, no redirects, credentials only in a header."""

from __future__ import annotations

import base64
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from drupelet import __version__
from drupelet.core.errors import BadInput, Conflict, NotFound
from drupelet.drivers.errors import ServiceRefused, ServiceSilent, TokenRefused

ANSWER_BYTES_MAX = 32 << 20
TIMEOUT = urllib3.Timeout(connect=10, read=60)
UPLOAD_TIMEOUT = urllib3.Timeout(connect=10, read=3600)
PIECE_BYTES = 1 << 20
_SAID_BYTES_MAX = 64 * 1024


class Http:
    """One service's API below `base`. `token` is a bearer token, or `user:password` for those that want one."""

    def __init__(self, service: str, base: str, token: str) -> None:
        if not base.startswith(("http://", "https://")):
            raise BadInput(
                f"{base[:100]!r} is not an http or https address", where=service, fix="say which server: --server URL"
            )
        if not (token.isascii() and token.isprintable()):
            raise BadInput("the token holds characters that no token has", where=service, fix="copy it as it was shown")
        self.service, self.base = service, base.rstrip("/")
        self._headers = {"User-Agent": f"drupelet/{__version__}", "Accept": "application/json"}
        if token and ":" in token:
            self._headers["Authorization"] = f"Basic {base64.b64encode(token.encode()).decode()}"
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT, ca_certs=os.environ.get("SSL_CERT_FILE"))

    def __repr__(self) -> str:
        return f"Http({self.service}, {self.base})"

    def json(self, method: str, path: str, body: object = None) -> tuple[Any, Mapping[str, str]]:
        """Return the answer's JSON (None if it is empty) and its headers."""
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        return self._ask(method, path, data, headers, TIMEOUT)

    def upload(
        self, path: str, *, field: str, file: Path, fields: Mapping[str, str] | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        """Post a form with one file in it, streamed: artifacts are larger than memory."""
        with _Form(file, field=field, fields=fields or {}) as form:
            headers = {**self._headers, "Content-Type": form.content_type, "Content-Length": str(form.size)}
            return self._ask("POST", path, form, headers, UPLOAD_TIMEOUT)

    def _ask(
        self, method: str, path: str, data: bytes | _Form | None, headers: dict[str, str], timeout: urllib3.Timeout
    ) -> tuple[Any, Mapping[str, str]]:
        url = self.base + path
        try:
            response = self._pool.request(
                method, url, body=data, headers=headers, timeout=timeout, redirect=False, preload_content=False
            )
            try:
                body = response.read(ANSWER_BYTES_MAX + 1)
            finally:
                response.release_conn()
        except LocationValueError as error:
            raise BadInput(f"{self.base[:100]!r} is not an address", where=self.service) from error
        except HTTPError as error:
            raise ServiceSilent(f"no answer: {type(error).__name__}", where=url, fix="check --server") from error
        if response.status >= 300 or len(body) > ANSWER_BYTES_MAX:
            raise self._refusal(response.status, body, url)
        if not body:
            return None, response.headers
        try:
            return json.loads(body), response.headers
        except (ValueError, RecursionError) as error:
            raise ServiceSilent(f"the answer is not JSON: is this {self.service}?", where=url) from error

    def _refusal(self, status: int, body: bytes, url: str) -> Exception:
        said = _words(body[:_SAID_BYTES_MAX])
        what = f"{self.service} answers {status}{': ' + said if said else ''}"
        if status in (401, 403):
            return TokenRefused(what, where=url, fix="check the token and what it may do")
        if status == 404:
            return NotFound(what, where=url)
        if status == 409:
            return Conflict(what, where=url)
        if status < 300 or status == 429 or status >= 500:
            return ServiceSilent(what if status >= 300 else "the answer is too large", where=url, fix="try again later")
        if status < 400:
            return ServiceSilent(f"the answer leads elsewhere: is this {self.service}?", where=url)
        return ServiceRefused(what, where=url)


class _Form:
    """A multipart form that is read piece by piece: the fields, then the file."""

    def __init__(self, file: Path, *, field: str, fields: Mapping[str, str]) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        head = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
        head.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        lead, tail = "".join(head).encode(), f"\r\n--{boundary}--\r\n".encode()
        try:
            self._file = file.open("rb")
        except OSError as error:
            raise NotFound(f"cannot read the artifact: {error.strerror}", where=str(file)) from error
        self.size = len(lead) + os.fstat(self._file.fileno()).st_size + len(tail)
        self._parts: list[IO[bytes]] = [io.BytesIO(lead), self._file, io.BytesIO(tail)]

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            while data := part.read(PIECE_BYTES):
                yield data

    def __enter__(self) -> _Form:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _words(body: bytes) -> str:
    """Return what a server said of its refusal; each of the three has its own word for it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode(errors="replace").strip()
        return "" if text.startswith("<") else " ".join(text.split())[:300]
    if isinstance(said, dict):
        said = next((said[key] for key in ("error", "message", "what") if isinstance(said.get(key), str)), "")
    return " ".join(str(said).split())[:300]
