"""The metrics of a gateway and of an agent, as objects that count and as the text that Prometheus reads.

Each process has its own registry: nothing is global, so five devices fit into one test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.registry import Collector

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason, UpdateState
from drupelet.telemetry.registry import METRICS
from drupelet.telemetry.sensors import Throttle
from drupelet.wire.telemetry import prompt_bucket

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# `_created` series would double the number of series and say nothing that a counter's reset does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Outcome(Enum):
    """How a request ended, as a label."""

    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    """Not admitted: the queue was full, or nothing was ready."""
    INVALID = "invalid"
    """The client's fault: malformed, or longer than the context."""
    TIMEOUT = "timeout"
    ABANDONED = "abandoned"
    """The client hung up."""


class UpdateOutcome(Enum):
    """How an update ended, as a label."""

    COMMITTED = "committed"
    REVERTED = "reverted"
    FAILED = "failed"
    REFUSED = "refused"


def _histogram(name: str, registry: CollectorRegistry) -> Histogram:
    spec = METRICS[name]
    return Histogram(spec.name, spec.says, spec.labels, buckets=spec.buckets, registry=registry)


def _counter(name: str, registry: CollectorRegistry) -> Counter:
    spec = METRICS[name]
    return Counter(spec.name, spec.says, spec.labels, registry=registry)


def _gauge(name: str, registry: CollectorRegistry) -> Gauge:
    spec = METRICS[name]
    return Gauge(spec.name, spec.says, spec.labels, registry=registry)


class _Exposed:
    """A registry and its text."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        for one in collectors:
            self.registry.register(one)

    def text(self) -> bytes:
        """Return the exposition; serve it as `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class GatewayMetrics(_Exposed):
    """What the gateway counts. `collectors` adds the machine's own, see `collectors.DeviceCollector`."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        super().__init__(collectors)
        registry = self.registry
        self._duration = _histogram("genai_request_duration_seconds", registry)
        self._first_token = _histogram("genai_time_to_first_token_seconds", registry)
        self._per_token = _histogram("genai_time_per_output_token_seconds", registry)
        self._tokens = _counter("genai_tokens_total", registry)
        self._decode = _counter("genai_decode_seconds_total", registry)
        self._running = _gauge("genai_requests_running", registry)
        self._waiting = _gauge("genai_requests_waiting", registry)
        self._model = _gauge("genai_model_info", registry)
        self._exits = _counter("genai_runtime_exits_total", registry)
        self._resident = _gauge("genai_runtime_resident_memory_bytes", registry)
        self._swap = _gauge("genai_runtime_swap_bytes", registry)
        self._served: dict[Slot, tuple[str, ...]] = {}
        self._measured: set[Slot] = set()
        for kind in ("prompt", "completion"):
            self._tokens.labels(kind)
        for reason in ExitReason:
            self._exits.labels(reason.value)

    def request(
        self,
        outcome: Outcome,
        duration_s: float,
        *,
        model: str,
        slot: Slot | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        ttft_s: float | None = None,
        decode_s: float | None = None,
    ) -> None:
        """Count a request that came to its end. `model` is a name of ours, never what a client sent."""
        bucket = prompt_bucket(prompt_tokens)
        self._duration.labels(model, bucket, outcome.value, slot.value if slot else "none").observe(duration_s)
        if outcome is not Outcome.OK:
            return
        self._tokens.labels("prompt").inc(prompt_tokens)
        self._tokens.labels("completion").inc(completion_tokens)
        if ttft_s is not None:
            self._first_token.labels(model, bucket).observe(ttft_s)
        if decode_s is not None:
            self._decode.inc(decode_s)
            if completion_tokens > 1:
                self._per_token.labels(model).observe(decode_s / (completion_tokens - 1))

    def queue(self, *, running: int, waiting: int) -> None:
        """Say how many requests run and wait."""
        self._running.set(running)
        self._waiting.set(waiting)

    def serving(self, slot: Slot, *, model: str, version: str, digest: str, quant: str) -> None:
        """Say what a slot serves now, instead of what it served before."""
        self.unloaded(slot)
        self._served[slot] = labels = (model, version, digest, quant, slot.value)
        self._model.labels(*labels).set(1)

    def unloaded(self, slot: Slot) -> None:
        """Say that a slot serves nothing any more."""
        if labels := self._served.pop(slot, None):
            self._model.remove(*labels)
        if slot in self._measured:
            self._measured.remove(slot)
            self._resident.remove(slot.value)
            self._swap.remove(slot.value)

    def exited(self, reason: ExitReason) -> None:
        """Count a child's end."""
        self._exits.labels(reason.value).inc()

    def child_memory(self, slot: Slot, *, resident_bytes: int, swap_bytes: int = 0) -> None:
        """Say what a slot's child uses."""
        self._measured.add(slot)
        self._resident.labels(slot.value).set(resident_bytes)
        self._swap.labels(slot.value).set(swap_bytes)


class AgentMetrics(_Exposed):
    """What the agent tells. Counters whose total lies on disk are set to it, and so survive a restart."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        super().__init__(collectors)
        registry = self.registry
        self._state = _gauge("drupelet_update_state", registry)
        self._updates = _counter("drupelet_update_total", registry)
        self._windows = _gauge("drupelet_spool_windows", registry)
        self._bytes = _gauge("drupelet_spool_bytes", registry)
        self._polled = _gauge("drupelet_last_poll_timestamp_seconds", registry)
        self._dropped = _Total(_counter("drupelet_spool_dropped_windows_total", registry))
        throttles = _counter("device_throttle_events_total", registry)
        self._throttles = {reason.label: _Total(throttles.labels(reason.label)) for reason in Throttle}
        for outcome in UpdateOutcome:
            self._updates.labels(outcome.value, Reason.NONE.value)
        self.state(UpdateState.IDLE)

    def state(self, state: UpdateState) -> None:
        """Say which state the update machine is in."""
        for one in UpdateState:
            self._state.labels(one.value).set(one is state)

    def updated(self, outcome: UpdateOutcome, reason: Reason = Reason.NONE) -> None:
        """Count an update that came to its end."""
        self._updates.labels(outcome.value, reason.value).inc()

    def spool(self, *, pending: int, bytes_used: int, dropped: int) -> None:
        """Say what the spool holds and has lost."""
        self._windows.set(pending)
        self._bytes.set(bytes_used)
        self._dropped.at_least(dropped)

    def polled(self, epoch_s: float) -> None:
        """Say when the fleet last answered."""
        self._polled.set(epoch_s)

    def throttles(self, events: Mapping[str, int]) -> None:
        """Say how often the board began to be held back, by reason."""
        for label, total in events.items():
            self._throttles[label].at_least(total)


class _Total:
    """A counter that follows a total kept elsewhere; a total that shrank (its file was lost) leaves it as it is."""

    __slots__ = ("_counter", "_total")

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self._total = 0

    def at_least(self, total: int) -> None:
        if total > self._total:
            self._counter.inc(total - self._total)
            self._total = total
