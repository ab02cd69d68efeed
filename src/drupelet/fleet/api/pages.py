"""`/docs`: the API for people, from the OpenAPI document, as one page without scripts or foreign servers."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse

CSP = "default-src 'self'; style-src 'unsafe-inline'"
STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{max-width:60rem;margin:2rem auto;padding:0 1rem}
summary{cursor:pointer;padding:.4rem 0}code{font-family:ui-monospace,monospace}.verb{display:inline-block;width:4.5rem;
font-weight:700}pre{overflow-x:auto;padding:.75rem;border:1px solid;border-radius:.4rem}details{border-bottom:1px solid}
"""


def mount(app: FastAPI) -> None:
    """Serve the page at `/docs`."""

    async def docs(_request: Request) -> HTMLResponse:
        return HTMLResponse(
            page(app.openapi()), headers={"Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'"}
        )

    app.add_route("/docs", docs, include_in_schema=False)


def page(document: dict[str, Any]) -> str:
    """Return the document as a page."""
    groups: dict[str, list[str]] = {}
    for path, verbs in document["paths"].items():
        for verb, route in verbs.items():
            tag = (route.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_route(path, verb, route))
    parts = [f"<section><h2>{escape(tag)}</h2>{''.join(routes)}</section>" for tag, routes in groups.items()]
    shapes = "".join(
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code> {escape(shape.get('description', ''))}"
        f"</summary>{_fields(shape)}</details>"
        for name, shape in sorted(document.get("components", {}).get("schemas", {}).items())
    )
    info = document["info"]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style><main><h1>{escape(info['title'])} "
        f"{escape(info['version'])}</h1><p>{escape(info.get('description', ''))} The same as "
        f"<a href='/openapi.json'>OpenAPI</a>.</p>{''.join(parts)}"
        f"<section><h2>shapes</h2>{shapes}</section></main></html>"
    )


def _route(path: str, verb: str, route: dict[str, Any]) -> str:
    rows = "".join(
        f"<li><code>{escape(p['name'])}</code> ({escape(p['in'])}{', required' if p.get('required') else ''})</li>"
        for p in route.get("parameters", [])
    )
    asked = _shape(route.get("requestBody", {}))
    answers = "".join(f"<li>{escape(status)}: {_shape(r)}</li>" for status, r in route.get("responses", {}).items())
    return (
        f"<details><summary><span class=verb>{escape(verb.upper())}</span> <code>{escape(path)}</code> "
        f"{escape(route.get('summary', ''))}</summary><ul>{rows}</ul>"
        f"{'<p>Body: ' + asked + '</p>' if asked else ''}<ul>{answers}</ul></details>"
    )


def _shape(holder: dict[str, Any]) -> str:
    content: list[dict[str, Any]] = list(holder.get("content", {}).values())
    found = content[0].get("schema", {}) if content else {}
    return _type(found) if found else escape(holder.get("description", ""))


def _type(shape: dict[str, Any]) -> str:
    if reference := shape.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f"<a href='#{name}'><code>{name}</code></a>"
    if options := shape.get("anyOf"):
        return " or ".join(_type(option) for option in options)
    if "items" in shape and isinstance(shape["items"], dict):
        return f"list of {_type(shape['items'])}"
    if "enum" in shape:
        return escape(", ".join(str(value) for value in shape["enum"]))
    return escape(str(shape.get("type", "anything")))


def _fields(shape: dict[str, Any]) -> str:
    rows = "".join(f"<li><code>{escape(n)}</code>: {_type(p)}</li>" for n, p in shape.get("properties", {}).items())
    return f"<ul>{rows}</ul>"
