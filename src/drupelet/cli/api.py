"""How commands talk to the fleet server: its REST API over HTTP, errors as the server says them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, NameResolutionError, NewConnectionError

from drupelet import __version__
from drupelet.core.errors import (
    BadInput,
    Conflict,
    DrupeletError,
    NotAllowed,
    NotFound,
    Refused,
    Unavailable,
    Untrusted,
)

SERVER_VARIABLE = "DRUPELET_SERVER"
TOKEN_VARIABLE = "DRUPELET_TOKEN"  # noqa: S105  (a variable's name)
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TIMEOUT = urllib3.Timeout(connect=5, read=60)
_KINDS: dict[int, type[DrupeletError]] = {
    400: BadInput, 401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 413: BadInput, 422: Untrusted,
    429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip

Server = Annotated[
    str,
    typer.Option("--server", envvar=SERVER_VARIABLE, help="The fleet server.", show_default=False),
]
Token = Annotated[
    str,
    typer.Option(
        "--token", envvar=TOKEN_VARIABLE, help="API token; better given in the environment.", show_default=False
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log.", show_default=False)]
NO_SERVER = ""


class Api:
    """The server's management API for one caller."""

    def __init__(self, server: str, token: str) -> None:
        if not server:
            raise BadInput("no fleet server is named", fix=f"give --server URL or set {SERVER_VARIABLE}")
        if not server.startswith(("http://", "https://")):
            raise BadInput(
                f"{server[:100]!r} is not an http or https address", fix="for example http://fleet.local:8443"
            )
        token = token.strip()
        if not (token.isascii() and token.isprintable()):
            raise BadInput(
                "the token holds characters that no token has", where=TOKEN_VARIABLE, fix="copy it as it was printed"
            )
        self._base = server.rstrip("/") + "/api/v1"
        self._headers = {"User-Agent": f"drupelet/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT, ca_certs=os.environ.get("SSL_CERT_FILE"))

    def get(self, path: str, **query: object) -> Any:
        """Return what is at `path`; empty query values are left out."""
        wanted = {key: str(value) for key, value in query.items() if value not in ("", None)}
        return self._ask("GET", path + (f"?{urlencode(wanted)}" if wanted else ""))

    def rows(self, path: str) -> list[Any]:
        """Return a resource that is a whole list."""
        return list(self._ask("GET", path, many=True))

    def post(self, path: str, body: dict[str, object] | None = None) -> Any:
        """Ask for something to be done."""
        return self._ask("POST", path, body or {})

    def patch(self, path: str, body: dict[str, object]) -> Any:
        """Change something."""
        return self._ask("PATCH", path, body)

    def delete(self, path: str, **query: object) -> None:
        """Remove something."""
        wanted = {key: str(value) for key, value in query.items() if value}
        self._ask("DELETE", path + (f"?{urlencode(wanted)}" if wanted else ""))

    def pages(self, path: str, *, key: str, limit: int = 1000, **query: object) -> list[Any]:
        """Return all items of a paged list, or the first `limit`."""
        items: list[Any] = []
        after = ""
        while len(items) < limit:
            page = self.get(path, **{**query, key: after, "limit": min(1000, limit - len(items))})
            items += page["items"]
            after = page["next"]
            if not after:
                break
        return items

    def changes(self) -> Iterator[str]:
        """Yield `kind key` of every change, and an empty text when nothing happened for a while."""
        response = self._open("GET", "/stream", None)
        try:
            if response.status != 200:
                self._raise(response)
            kind = ""
            for line in response:
                text = line.decode(errors="replace").rstrip("\n")
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: "):
                    yield f"{kind} {json.loads(text[6:]).get('key', '')}"
                elif text.startswith(":"):
                    yield ""
        except HTTPError as error:
            raise Unavailable(f"the stream broke: {error}", where=self._base) from error
        finally:
            response.close()

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None, *, many: bool = False) -> Any:
        response = self._open(method, path, body)
        try:
            if 300 <= response.status < 400:
                raise Unavailable("the answer leads elsewhere: is this a fleet server?", where=self._base + path)
            if response.status >= 400:
                self._raise(response)
            data = response.read(ANSWER_BYTES_MAX)
        except HTTPError as error:
            raise Unavailable(f"the answer broke off: {error}", where=self._base + path) from error
        finally:
            response.release_conn()
        try:
            answer = json.loads(data) if data else {}
        except (ValueError, RecursionError) as error:
            raise Unavailable("the answer is not JSON: is this a fleet server?", where=self._base + path) from error
        items = answer if many else [answer]
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            wanted = "list of objects" if many else "object"
            raise Unavailable(f"the answer is no JSON {wanted}: is this a fleet server?", where=self._base + path)
        made = [_Answer(item) for item in items]
        return made if many else made[0]

    def _open(self, method: str, path: str, body: dict[str, object] | None) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            return self._pool.request(
                method, self._base + path, body=data, headers=headers, redirect=False, preload_content=False
            )
        except LocationValueError as error:
            raise BadInput(
                f"{self._base[:100]!r} is not an address", where="--server", fix="for example http://fleet.local:8443"
            ) from error
        except HTTPError as error:
            raise Unavailable(
                f"the fleet server does not answer: {_words(error)}",
                where=self._base,
                fix="check --server, and that it runs",
            ) from error

    def _raise(self, response: urllib3.BaseHTTPResponse) -> None:
        try:
            said = json.loads(response.read(1024 * 1024))
            what, where, fix = (str(said.get(name, "")) for name in ("what", "where", "fix"))
        except (ValueError, AttributeError):
            what, where, fix = f"the server answers {response.status}", self._base, ""
        kind = _KINDS.get(response.status, Refused if response.status < 500 else DrupeletError)
        raise kind(what or f"the server answers {response.status}", where=where, fix=fix)


class _Answer(dict[str, Any]):
    """What the server said. Another server's JSON lacks what is asked of it; that is said, not raised as a KeyError."""

    def __missing__(self, key: str) -> Any:
        raise Unavailable(f"the answer has no {key!r}: is this a fleet server of this version?", where="--server")


def _words(error: HTTPError) -> str:
    """Return what went wrong without the client's own object before it."""
    if isinstance(error, NewConnectionError | NameResolutionError) and error.__cause__ is not None:
        return getattr(error.__cause__, "strerror", None) or str(error.__cause__)
    return str(error)


def part(text: str) -> str:
    """Return a name made safe as one part of a path."""
    return quote(text, safe="")


def release_path(text: str) -> str:
    """Return `/releases/<family>/<version>` of a release as people write it."""
    from drupelet.core.names import ReleaseId

    return f"/releases/{ReleaseId.parse(text).path}"


def ago(at_ms: int | None, *, now_ms: int) -> str:
    """Return how long ago something was, for a table."""
    if at_ms is None:
        return "never"
    seconds = max(0, now_ms - at_ms) / 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
