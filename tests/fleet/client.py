"""Calls the application without a socket: an event loop in a thread, and httpx speaking ASGI to it."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any

import httpx

from drupelet.fleet.app import Fleet, build

OPEN: list[Client] = []
"""Those of the present test; the fixture `_closed_clients` ends them."""


class Client:
    """A caller. Entered as a context, the fleet's threads run as well."""

    def __init__(self, fleet: Fleet, *, cookies: dict[str, str] | None = None) -> None:
        self._fleet = fleet
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(app=build(fleet), raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://testserver", cookies=cookies)
        self._running: Any = None
        OPEN.append(self)

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self._do(self._http.request(method, path, **given))

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.request("POST", path, **given)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def __enter__(self) -> Client:
        self._running = self._fleet.running()
        self._do(self._running.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._running.__aexit__(None, None, None))
        self.close()

    def close(self) -> None:
        """End the loop."""
        if self._loop.is_running():
            self._do(self._http.aclose())
            self._do(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
