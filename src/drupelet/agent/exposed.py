"""The agent's metrics over HTTP, where an operator wants them: off unless `[metrics]` says so, loopback by default."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from drupelet.agent.config import MetricsSettings
from drupelet.agent.effects import WindowSpool
from drupelet.agent.errors import PortTaken
from drupelet.agent.model import DeviceState
from drupelet.core.errors import DrupeletError
from drupelet.core.states import UpdateState
from drupelet.telemetry.metrics import AgentMetrics, UpdateOutcome
from drupelet.telemetry.throttle import ThrottleLog
from drupelet.wire.device_api import DeviceEvent

SAMPLE_EVERY_S = 15.0
"""How often the firmware is asked for throttling: what rises and falls in between shows in its bits since boot."""


def outcome_of(event: DeviceEvent) -> UpdateOutcome | None:
    """Return how an update ended with this event, None if it did not."""
    if event.event == "refused":
        return UpdateOutcome.REFUSED if event.before is UpdateState.PREFLIGHT else UpdateOutcome.FAILED
    return {
        "committed": UpdateOutcome.COMMITTED,
        "reverted": UpdateOutcome.REVERTED,
        "taken_back": UpdateOutcome.REVERTED,
        "stuck": UpdateOutcome.FAILED,
    }.get(event.event)


class Exposed:
    """Follows the agent's state and shows it at `/metrics`. Use as a context."""

    def __init__(
        self,
        metrics: AgentMetrics,
        settings: MetricsSettings,
        *,
        throttling: ThrottleLog,
        since: int,
        clock: Callable[[], float],
    ) -> None:
        """Listen at once; raises `PortTaken`. Events up to `since` were counted by an earlier process."""
        self._metrics = metrics
        self._throttling = throttling
        self._clock = clock
        self._sample_at = clock()
        self._counted = since
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), _handler(metrics))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            fix = "choose another metrics.port"
            raise PortTaken(f"cannot listen: {error.strerror}", where=where, fix=fix) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def follow(self, state: DeviceState, spool: WindowSpool, *, answered_ms: int) -> None:
        """Show this state; count the updates that ended since the last call."""
        self._metrics.state(state.state)
        self._metrics.spool(pending=spool.pending, bytes_used=spool.bytes_used, dropped=spool.dropped)
        if answered_ms:
            self._metrics.polled(answered_ms / 1000)
        for event in state.recent:
            outcome = outcome_of(event) if event.seq > self._counted else None
            if outcome is not None:
                self._metrics.updated(outcome, event.reason)
        self._counted = max(self._counted, state.seq)
        if self._clock() >= self._sample_at:
            self._sample_at = self._clock() + SAMPLE_EVERY_S
            # A board without `vcgencmd`, or a full disk, costs this count and nothing else.
            with suppress(DrupeletError):
                self._throttling.sample()
            self._metrics.throttles(self._throttling.events)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(metrics: AgentMetrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = metrics.text() if found else b"not found\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST if found else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line."""

    return Handler
