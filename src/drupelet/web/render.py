"""Templates, and the headers every answer carries. They escape everything: what a device says is only ever text."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from drupelet.web import picture, words
from drupelet.web.assets import asset

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""`same-origin` for the referrer, not less: without it browsers hide the origin of our own forms."""
SANDBOX_HEADERS = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""For a page that others wrote: without `allow-same-origin` it has no cookies of ours and no way to the API."""
_FILTERS = (
    "release_name", "plain", "size", "duration", "evidence", "share", "effect", "interval", "margin", "iso",
    "headline", "health", "plural",
)  # fmt: skip


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the templates, made once."""
    made = Environment(
        loader=PackageLoader("drupelet.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update({name: getattr(words, name) for name in _FILTERS})
    made.filters["pretty"] = _pretty
    made.globals.update(
        asset=lambda name: asset(name).path,
        words=words,
        berry=picture.berry,
        curve=picture.curve,
    )
    return made


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def page(template: str, *, now: int, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page. `now` is the time all its relative times refer to."""

    def ago(at: int | None) -> str:
        return words.ago(at, now)

    def clock(at: int | None) -> str:
        return words.clock(at, now)

    text = environment().get_template(template).render(now=now, ago=ago, clock=clock, **values)
    return HTMLResponse(text, status, headers={**HEADERS, "Cache-Control": "no-store"})
