"""An ASGI application that serves a depot folder, read-only. Any web server can; this one is at hand.

Paths are not taken from the request: its parts are matched against the few shapes a depot's names have, and the path
is built anew from them. `..`, encoded slashes, other files and folders match no shape and are not found. A symbolic
link, of a file or of a folder on the way, is not followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from drupelet.depot.ports import cache_control, is_depot_path


def depot_app(folder: Path) -> Starlette:
    """Return an application that serves the depot in `folder`."""
    handler = _Handler(folder)
    return Starlette(routes=[Route("/{path:path}", handler.answer, methods=["GET"])])


class _Handler:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        # The router's pattern lets an end of line after the path go by unseen.
        plain = "\n" not in request.scope["path"] and is_depot_path(path)
        found = _regular_file(self._folder, path) if plain else None
        if found is None:
            return PlainTextResponse("not found\n", status_code=404)
        headers = {
            "Cache-Control": cache_control(path),
            "X-Content-Type-Options": "nosniff",
        }
        kind = "application/json" if path.endswith(".json") else "application/octet-stream"
        return _OneRange(self._folder / path, headers=headers, media_type=kind, stat_result=found)


class _OneRange(FileResponse):
    """Serves the whole file when several ranges are asked for at once: nobody needs them, and they multiply work."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        several = any(name == b"range" and b"," in value for name, value in scope["headers"])
        if several:
            kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


def _regular_file(folder: Path, path: str) -> os.stat_result | None:
    """Return the state of a regular file below `folder` that no symbolic link leads to, or None."""
    here = folder
    parts = path.split("/")
    for part in parts[:-1]:
        here /= part
        if here.is_symlink():
            return None
    try:
        found = (here / parts[-1]).lstat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
