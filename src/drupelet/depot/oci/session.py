"""One request to a registry: signed in, tried again, redirected with care, and its failure said in one line.

- 401 names how to sign in: Basic, or Bearer with an address that gives tokens. Each token is kept for its scope.
- 429 and 5xx are tried again after `Retry-After`, or after a growing wait, a bounded number of times.
- A redirect is followed for what is read only, never from https to http, and credentials never go to another host.
- Errors name the registry's own code. No header and no token is ever in a message.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from drupelet import __version__
from drupelet.core.errors import DrupeletError, NotFound
from drupelet.depot.errors import SourceUnreachable, StoreRefused
from drupelet.depot.http import closing, make_pool, said_plainly
from drupelet.depot.oci.credentials import Credentials
from drupelet.depot.oci.reference import Repository
from drupelet.wire.codec import TooLarge

ATTEMPTS_MAX = 5
WAIT_FIRST_S = 0.5
WAIT_MAX_S = 60.0
"""A server that asks for more patience than this is told to people instead."""
REDIRECTS_MAX = 5
ERROR_BYTES_MAX = 8 * 1024
TOKEN_BYTES_MAX = 64 * 1024
_BUSY = (429, 500, 502, 503, 504)
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_CODE = re.compile(r"[A-Z_]{2,40}\Z")


class Session:
    """Talks to one registry about one repository."""

    def __init__(
        self,
        repository: Repository,
        *,
        credentials: Credentials | None = None,
        pool: urllib3.PoolManager | None = None,
        sleep: Callable[[float], None] = time.sleep,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self.repository = repository
        self._credentials = credentials
        self._pool = pool or make_pool()
        self._sleep = sleep
        self._attempts_max = attempts_max
        self._authorization: dict[str, str] = {}
        """By scope: what was accepted last."""

    @contextmanager
    def ask(
        self,
        method: str,
        address: str,
        *,
        wanted: tuple[int, ...],
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        again: bool = True,
        fields: str = "",
    ) -> Iterator[BaseHTTPResponse]:
        """Ask, and yield an answer with one of the `wanted` statuses.

        `address` is a path below `/v2/<repository>/` or a whole address that the registry gave. `actions` are those of
        a token: `pull` or `pull,push`; `fields` are further scopes. Raises `NotFound` (404), `StoreRefused` (401, 403)
        or `SourceUnreachable`; without `again` only sign-in is repeated.
        """
        url = self.url(address)
        scope = " ".join(filter(None, (f"repository:{self.repository.name}:{actions}", fields)))
        response = self._answered(method, url, scope=scope, headers=dict(headers or {}), body=body, again=again)
        with said_plainly(_plain(url)), closing(response):
            if response.status not in wanted:
                raise refusal(response, _plain(url))
            _refuse_web_page(response, _plain(url))
            yield response

    def url(self, address: str) -> str:
        """Return the whole address of a path, or of a `Location`, which must not lead to another host."""
        base = f"{self.repository.base}/v2/{self.repository.name}/"
        if not address.startswith(("/", "http://", "https://")):
            return base + address
        url = urljoin(base, address)
        if _origin(url) != _origin(base):
            raise SourceUnreachable(
                f"the registry sends uploads to {_origin(url)}, which was not asked for",
                where=str(self.repository),
                fix="correct the address, or the registry's own (http.host behind a proxy)",
            )
        return url

    def _answered(
        self, method: str, url: str, *, scope: str, headers: dict[str, str], body: bytes | None, again: bool
    ) -> BaseHTTPResponse:
        """Return an answer that is neither "sign in" nor, as long as there are attempts, "not now"."""
        wait_s = WAIT_FIRST_S
        signed_in = False
        left = self._attempts_max if again else 1
        while True:
            left -= 1
            try:
                response = self._redirected(method, url, headers=headers, body=body, scope=scope)
            except SourceUnreachable:
                if left <= 0:
                    raise
                self._sleep(wait_s)
                wait_s = min(2 * wait_s, WAIT_MAX_S)
                continue
            if response.status == 401 and not signed_in and self._signed_in(response, scope):
                signed_in = True
                left += 1
            elif response.status in _BUSY and left > 0 and (asked_s := _retry_after(response)) <= WAIT_MAX_S:
                self._sleep(max(asked_s, wait_s))
                wait_s = min(2 * wait_s, WAIT_MAX_S)
            else:
                return response
            with closing(response):
                pass

    def _redirected(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, scope: str
    ) -> BaseHTTPResponse:
        here = url
        for _ in range(REDIRECTS_MAX):
            sent = {"User-Agent": f"drupelet/{__version__}", "Accept-Encoding": "identity", **headers}
            if _origin(here) == _origin(url) and scope in self._authorization:
                sent["Authorization"] = self._authorization[scope]
            with said_plainly(_plain(here)):
                response = self._pool.request(
                    method, here, headers=sent, body=body, preload_content=False, redirect=False, retries=False
                )
            location = response.headers.get("Location", "")
            if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            with closing(response):
                there = urljoin(here, location)
            if urlsplit(there).scheme not in ("http", "https") or (
                here.startswith("https:") and not there.startswith("https:")
            ):
                raise SourceUnreachable(
                    "redirected from https to something unprotected", where=_plain(here), fix="correct the registry"
                )
            here = there
        raise SourceUnreachable(f"more than {REDIRECTS_MAX} redirects", where=_plain(url))

    def _signed_in(self, response: BaseHTTPResponse, scope: str) -> bool:
        """Take up what a 401 offers; False if there is nothing to be offered in return."""
        challenge = response.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self._credentials is not None:
            self._authorization[scope] = self._credentials.basic
            return True
        if kind.lower() != "bearer":
            return False
        given = dict(_PARAMETER.findall(rest))
        realm = given.get("realm", "")
        base = self.repository.base
        if not realm.startswith("https://") and not (self.repository.plain and _origin(realm).startswith("http://")):
            raise SourceUnreachable(
                "the registry wants passwords sent unprotected", where=base, fix="correct the address"
            )
        query = urlencode({"service": given.get("service", ""), "scope": scope}, doseq=True)
        self._authorization[scope] = f"Bearer {self._token(f'{realm}?{query}')}"
        return True

    def _token(self, url: str) -> str:
        headers = {"User-Agent": f"drupelet/{__version__}"}
        if self._credentials is not None:
            headers["Authorization"] = self._credentials.basic
        where = _plain(url)
        with said_plainly(where):
            response = self._pool.request(
                "GET", url, headers=headers, preload_content=False, redirect=False, retries=False
            )
            with closing(response):
                if response.status != 200:
                    raise refusal(response, where)
                data = response.read(TOKEN_BYTES_MAX, decode_content=True)
        try:
            value = json.loads(data)
            token = value.get("token") or value.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise SourceUnreachable("the answer holds no token", where=where, fix="check the registry's address")
        return token


def read_whole(response: BaseHTTPResponse, where: str, *, bytes_max: int) -> bytes:
    """Return a small body, or raise `TooLarge` or, if it ends early, `SourceUnreachable`."""
    with said_plainly(where):
        body = bytearray()
        while data := response.read1(bytes_max + 1 - len(body), decode_content=False):
            body += data
            if len(body) > bytes_max:
                raise TooLarge(f"more than the {bytes_max} bytes allowed", where=where)
    said = response.headers.get("Content-Length", "")
    if said.isdigit() and len(body) < int(said):
        raise SourceUnreachable(f"cut short after {len(body)} of {said} bytes", where=where)
    return bytes(body)


def refusal(response: BaseHTTPResponse, where: str) -> DrupeletError:
    """Return what an unwanted answer means."""
    status, code = response.status, _code_in(response)
    named = f"{status} {code}".strip()
    if status == 401:
        return StoreRefused(
            f"the registry wants other credentials, or some ({named})",
            where=where,
            fix="docker login, or set DRUPELET_OCI_USERNAME and DRUPELET_OCI_PASSWORD",
        )
    if status == 403:
        return StoreRefused(
            f"the credentials do not allow this ({named})", where=where, fix="ask for the right to push or pull"
        )
    if status == 404:
        return NotFound(f"the registry does not know it ({named})", where=where, fix="check the name and the version")
    if status == 429:
        return SourceUnreachable("the registry asks for fewer requests (429)", where=where, fix="try again later")
    return SourceUnreachable(f"the registry answers {named}", where=where, fix="try again later")


def _code_in(response: BaseHTTPResponse) -> str:
    """Return the error code of the distribution spec, if the body has one."""
    try:
        with said_plainly(""):
            value = json.loads(response.read(ERROR_BYTES_MAX, decode_content=True))
        code = value["errors"][0]["code"]
    except (DrupeletError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and _CODE.match(code) else ""


def _refuse_web_page(response: BaseHTTPResponse, where: str) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise SourceUnreachable(
            "a web page came back: this is no registry, or a network that wants a log-in",
            where=where,
            fix="correct the address, or log in to the network",
        )


def _retry_after(response: BaseHTTPResponse) -> float:
    """Return the seconds a busy server asks for; dates are not understood and mean none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0


def _origin(url: str) -> str:
    """Return scheme, host and port, the port always written."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _plain(url: str) -> str:
    """Return an address without its query, which may hold a signature or an upload's state."""
    return url.partition("?")[0]
