"""Depots and fleet servers over HTTP: bounded, resumable, and suspicious of whatever answers.

Between a device and its depot there may be a captive portal, a caching proxy, a server that ignores Range or never
stops sending. None of it can put wrong bytes on a device, for everything is hashed; the care here is that none of it
costs the device its disk, its memory or its time, and that the error says what happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, ProtocolError, ReadTimeoutError

from drupelet import __version__
from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import BadAddress, BlobRefused, NoBlob, SourceUnreachable, TokenRefused
from drupelet.depot.ports import blob_path
from drupelet.wire.codec import TooLarge

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
"""Silence, not slowness: the longest wait for the next byte."""
GET_SECONDS_MAX = 60.0
"""For a whole small file."""
STALL_WINDOW_S = 60.0
STALL_BYTES_MIN = 16 * 1024
"""A download that brings less than this in a window is given up, to be resumed: 273 bytes/s is below any modem."""
CHUNK_BYTES = 1 << 20

_HEADERS = {"User-Agent": f"drupelet/{__version__}", "Accept-Encoding": "identity"}


def make_pool(*, ca_file: str | None = None, connections: int = 4) -> urllib3.PoolManager:
    """Return a connection pool with this module's timeouts; it neither retries nor follows redirects."""
    return urllib3.PoolManager(
        num_pools=8,
        maxsize=connections,
        block=False,
        retries=False,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        ca_certs=ca_file,
    )


def checked_url(text: str) -> str:
    """Return a base address without its last slash, or raise `BadAddress`."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise BadAddress(f"{text[:200]!r} is not an http or https address", fix="for example http://depot.local:8090")
    return text.rstrip("/")


class HttpFetch:
    """Fetches small files whole: metadata, manifests. Implements trust's `Fetch`."""

    def __init__(
        self,
        pool: urllib3.PoolManager | None = None,
        *,
        seconds_max: float = GET_SECONDS_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool or make_pool()
        self._seconds_max = seconds_max
        self._monotonic = monotonic

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        """Return the body at `url`.

        Raises `NotFound` (403, 404), `TokenRefused` (401), `SourceUnreachable` or `TooLarge`.
        """
        headers = dict(_HEADERS)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        deadline = self._monotonic() + self._seconds_max
        with _request(self._pool, url, headers) as response:
            if response.status in (403, 404):
                raise NotFound(f"the server answers {response.status}", where=url)
            if response.status == 401:
                raise TokenRefused("the server does not accept the token", where=url, fix="ask for a new one")
            _refuse_unusable(response, url, (200,))
            said = _content_length(response)
            if said is not None and said > bytes_max:
                raise TooLarge(f"{said} bytes where at most {bytes_max} are allowed", where=url)
            body = bytearray()
            while data := response.read1(bytes_max + 1 - len(body), decode_content=False):
                body += data
                if len(body) > bytes_max:
                    raise TooLarge(f"more than the {bytes_max} bytes allowed", where=url)
                if self._monotonic() > deadline:
                    raise SourceUnreachable(
                        f"not done after {self._seconds_max:.0f} s", reason=Reason.DOWNLOAD_STALLED, where=url
                    )
            if said is not None and len(body) < said:
                raise SourceUnreachable(f"cut short after {len(body)} of {said} bytes", where=url)
        return bytes(body)


class HttpSource:
    """A depot at an address, as any web server serves it. Implements `Source`."""

    def __init__(
        self,
        base_url: str,
        pool: urllib3.PoolManager | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = checked_url(base_url)
        self._pool = pool or make_pool()
        self._monotonic = monotonic

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on; see `Source.open`. A server that ignores Range is read past."""
        url = f"{self._base}/{blob_path(digest)}"
        headers = dict(_HEADERS)
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with _request(self._pool, url, headers) as response:
            yield from read_blob(response, url, offset=offset, size=size, monotonic=self._monotonic)


def read_blob(
    response: urllib3.response.BaseHTTPResponse,
    url: str,
    *,
    offset: int,
    size: int,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Yield a blob's bytes from `offset` on out of an answer, whose head is checked first; see `Source.open`."""
    skip = _offset_to_skip(response, url, offset=offset, size=size)
    left = size - offset + skip
    waited_s, window_bytes = 0.0, 0
    while True:
        before = monotonic()
        # One byte more than is due, so that a server which does not stop is noticed.
        data = response.read1(min(CHUNK_BYTES, left + 1), decode_content=False)
        waited_s += monotonic() - before
        window_bytes += len(data)
        if not data:
            break
        if len(data) > left:
            raise BlobRefused(f"the server sends more than the {size} bytes signed", reason=Reason.TOO_LARGE, where=url)
        left -= len(data)
        if waited_s > STALL_WINDOW_S:
            _refuse_stall(url, window_bytes, waited_s)
            waited_s, window_bytes = 0.0, 0
        yield data[skip:]
        skip -= min(skip, len(data))
    if left:
        _say_cut(response, url, left)


@contextmanager
def _request(
    pool: urllib3.PoolManager, url: str, headers: dict[str, str]
) -> Iterator[urllib3.response.BaseHTTPResponse]:
    """Open a GET and turn what urllib3 raises, now or while reading, into this room's errors."""
    with said_plainly(url):
        response = pool.request("GET", url, headers=headers, preload_content=False, redirect=False, retries=False)
        with closing(response):
            yield response


@contextmanager
def closing(response: urllib3.response.BaseHTTPResponse) -> Iterator[None]:
    """Let go of an answer afterwards."""
    try:
        yield
    finally:
        # A body read to its end has given its connection back to the pool; of any other the connection is closed.
        response.close()
        response.release_conn()


@contextmanager
def said_plainly(url: str) -> Iterator[None]:
    """Turn what urllib3 raises into this room's errors."""
    try:
        yield
    except LocationValueError as error:
        raise BadAddress(f"{url[:200]!r} is not an address: {error}") from error
    except ReadTimeoutError as error:
        raise SourceUnreachable(
            f"silent for {READ_TIMEOUT_S:.0f} s", reason=Reason.DOWNLOAD_STALLED, where=url, fix="it will be resumed"
        ) from error
    except ProtocolError as error:
        raise SourceUnreachable("the connection was cut", where=url, fix="it will be resumed") from error
    except HTTPError as error:
        raise SourceUnreachable(
            f"cannot be reached: {_plainly(error)}", where=url, fix="check the network and the address"
        ) from error


def _plainly(error: HTTPError) -> str:
    """Return urllib3's words without object addresses."""
    return str(error).rpartition(">: ")[2][:200] or type(error).__name__


def _refuse_unusable(response: urllib3.response.BaseHTTPResponse, url: str, wanted: tuple[int, ...]) -> None:
    """Raise `SourceUnreachable` unless this is a plain answer of a depot or a fleet server."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 300 <= response.status < 400 or (response.status in wanted and kind in ("text/html", "application/xhtml+xml")):
        raise SourceUnreachable(
            "a web page or a redirect came back, as from a captive portal",
            where=url,
            fix="log in to the network, or correct the address",
        )
    if response.status not in wanted:
        raise SourceUnreachable(f"the server answers {response.status}", where=url)
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise SourceUnreachable(
            f"the answer is encoded as {coding[:40]!r}, which was not asked for",
            where=url,
            fix="switch compression off in the server or proxy",
        )


def _content_length(response: urllib3.response.BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _offset_to_skip(response: urllib3.response.BaseHTTPResponse, url: str, *, offset: int, size: int) -> int:
    """Check an answer's head against what was asked, and return how many bytes come that we have already."""
    if response.status in (403, 404):
        raise NoBlob("the depot does not hold this blob", where=url, fix="publish the release again")
    if response.status == 416:
        raise BlobRefused(f"the blob ends before byte {offset}", reason=Reason.TRUNCATED, where=url)
    _refuse_unusable(response, url, (200, 206) if offset else (200,))
    skip = offset if response.status == 200 else 0
    if response.status == 206:
        wanted = f"bytes {offset}-{size - 1}/{size}"
        said = response.headers.get("Content-Range", "")
        if said != wanted:
            total = said.rpartition("/")[2]
            if total.isascii() and total.isdigit() and len(total) < 20:
                _refuse_length(int(total), size, url)
            raise SourceUnreachable(f"the server sends {said[:80]!r} where {wanted!r} was asked for", where=url)
    length = _content_length(response)
    if length is not None:
        _refuse_length(length + offset - skip, size, url)
    return skip


def _refuse_length(length: int, size: int, url: str) -> None:
    if length != size:
        reason = Reason.TOO_LARGE if length > size else Reason.TRUNCATED
        raise BlobRefused(f"the blob has {length} bytes where {size} were signed", reason=reason, where=url)


def _refuse_stall(url: str, window_bytes: int, waited_s: float) -> None:
    if window_bytes < STALL_BYTES_MIN:
        raise SourceUnreachable(
            f"{window_bytes} bytes in {waited_s:.0f} s",
            reason=Reason.DOWNLOAD_STALLED,
            where=url,
            fix="it will be resumed",
        )


def _say_cut(response: urllib3.response.BaseHTTPResponse, url: str, left: int) -> None:
    """Raise for an answer that ended early: by its own word (it is shorter), or because the connection was cut."""
    if _content_length(response) is None:
        raise BlobRefused(f"the blob ends {left} bytes early", reason=Reason.TRUNCATED, where=url)
    raise SourceUnreachable(f"cut short with {left} bytes to come", where=url, fix="it will be resumed")
