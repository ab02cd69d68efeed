"""Signing in by an API token, and forms that only our own pages can send.

The token itself is the session: it lies in a cookie that scripts cannot read and that other sites' requests never
carry, until the browser closes, and it ends when the token is revoked. A form is believed if its cookie is good, the
browser says that it comes from our own pages, and it repeats a word that follows from the token: three doors, each of
which would do.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from drupelet.fleet.api.door import COOKIE
from drupelet.fleet.errors import NoPermission
from drupelet.wire.codec import Malformed, TooLarge

FORM_BYTES_MAX = 16 * 1024
FIELDS_MAX = 8
TOKEN_LENGTH_MAX = 512


def form_word(request: Request) -> str:
    """Return the word that this session's forms carry; empty without a session."""
    secret = request.cookies.get(COOKIE, "")
    return hmac.digest(secret.encode(), b"drupelet pages: a form", "sha256").hex() if secret else ""


async def form(request: Request) -> dict[str, str]:
    """Return a posted form's fields, or raise `TooLarge` or `Malformed`."""
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > FORM_BYTES_MAX:
                raise TooLarge(f"more than {FORM_BYTES_MAX} bytes", where=request.url.path)
    except ClientDisconnect as error:
        raise Malformed("the form was cut short", where=request.url.path) from error
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError as error:
        raise Malformed("the form is not one of this server's", where=request.url.path) from error


def require_own_page(request: Request) -> None:
    """Return if the browser says that the request comes from our own pages, or raise `NoPermission`."""
    origin = request.headers.get("origin", "")
    if not origin or urlsplit(origin).netloc != request.headers.get("host", ""):
        raise NoPermission("the request does not come from this server's pages", where=request.url.path)


def require_own_form(request: Request, fields: dict[str, str]) -> None:
    """Return if the form is of this session, or raise `NoPermission`."""
    require_own_page(request)
    word = form_word(request)
    if not word or not hmac.compare_digest(word.encode(), fields.get("word", "").encode()):
        raise NoPermission(
            "the form belongs to another session", where=request.url.path, fix="go back, reload the page, try again"
        )


def safe_next(wanted: str) -> str:
    """Return where to go after signing in: a path of this server, never another site."""
    parts = urlsplit(wanted)
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return wanted if plain and wanted.isprintable() and "\\" not in wanted else "/"


def remember(request: Request, response: Response, token: str) -> None:
    """Keep the token in the browser until it closes."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")


def forget(response: Response) -> None:
    """End the session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
