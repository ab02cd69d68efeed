"""The shop's server on loopback, in a thread, for a real browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from drupelet.fleet.app import build
from drupelet.web import pages
from tests.waiting import until
from tests.web.shop import Shop


@contextmanager
def serving(shop: Shop) -> Iterator[str]:
    """Serve while in the context; yields the address."""
    app = build(shop.fleet, mounts=[("/", pages(shop.fleet.desks(), clock=lambda: shop.now))])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, timeout_s=15, what="the server to listen")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        shop.fleet.changes.unbind()
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
