"""Every metric that Drupelet exposes: one table, from which the metrics are made and docs/metrics.md is checked.

Base units, `_total` for counters, one `_info` for versions, no colons (they are for recording rules). Every reason and
type that can be known beforehand is there at 0 from the start, so that the first event is an increase.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

REQUEST_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.4, 3.2, 4.8, 10.0, 30.0)
"""An objective of 1.2 s is an exact edge."""
FIRST_TOKEN_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 4.8, 10.0)
PER_TOKEN_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)


class Kind(Enum):
    """What Prometheus calls the type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric: its name as exposed, its type, its labels and what it says."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    says: str
    buckets: tuple[float, ...] = ()


def _histogram(name: str, labels: tuple[str, ...], buckets: tuple[float, ...], says: str) -> Spec:
    return Spec(name, Kind.HISTOGRAM, labels, says, buckets)


def _counter(name: str, labels: tuple[str, ...], says: str) -> Spec:
    return Spec(name, Kind.COUNTER, labels, says)


def _gauge(name: str, labels: tuple[str, ...], says: str) -> Spec:
    return Spec(name, Kind.GAUGE, labels, says)


GATEWAY = (
    _histogram(
        "genai_request_duration_seconds",
        ("model", "prompt_bucket", "outcome", "served_by"),
        REQUEST_BUCKETS_S,
        "Whole requests, from arrival to the last byte, by prompt size, outcome and what served them.",
    ),
    _histogram(
        "genai_time_to_first_token_seconds",
        ("model", "prompt_bucket"),
        FIRST_TOKEN_BUCKETS_S,
        "From arrival to the first token of the answer.",
    ),
    _histogram(
        "genai_time_per_output_token_seconds",
        ("model",),
        PER_TOKEN_BUCKETS_S,
        "Decoding time of one answer divided by its tokens after the first.",
    ),
    _counter("genai_tokens_total", ("type",), "Tokens of answered requests, prompt and completion."),
    _counter("genai_decode_seconds_total", (), "Time spent decoding; tokens divided by it is the speed."),
    _gauge("genai_requests_running", (), "Requests that a child is working on."),
    _gauge("genai_requests_waiting", (), "Requests in the queue."),
    _gauge("genai_model_info", ("model", "version", "digest", "quant", "slot"), "What each slot serves; always 1."),
    _counter("genai_runtime_exits_total", ("reason",), "Ends of inference children, by reason."),
    _gauge("genai_runtime_resident_memory_bytes", ("slot",), "Resident memory of the slot's inference child."),
    _gauge("genai_runtime_swap_bytes", ("slot",), "Swapped memory of the slot's inference child."),
)

DEVICE = (
    _gauge("device_temperature_celsius", ("sensor",), "Temperature, by sensor."),
    _gauge("device_throttled", ("reason",), "Whether the board is held back now, by reason."),
    _gauge("device_memory_bytes", ("kind",), "The machine's memory, by kind."),
    _counter("device_oom_kills_total", (), "Processes that the kernel killed for memory since boot."),
    _counter("device_major_page_faults_total", (), "Page faults that needed the disk since boot."),
    _gauge("device_boot_time_seconds", (), "Unix time of the last boot, as the device's clock has it."),
    _gauge("process_resident_memory_bytes", (), "Resident memory of this process."),
    _counter("process_cpu_seconds_total", (), "CPU time of this process."),
    _gauge("drupelet_collector_success", ("collector",), "Whether the collector could read what it reads."),
    _gauge("drupelet_collector_duration_seconds", ("collector",), "How long the collector took."),
)

AGENT = (
    _gauge("drupelet_update_state", ("state",), "1 for the state the update machine is in, 0 for the others."),
    _counter("drupelet_update_total", ("outcome", "reason"), "Updates that came to an end, and why."),
    _gauge("drupelet_spool_windows", (), "Telemetry windows waiting to be sent."),
    _gauge("drupelet_spool_bytes", (), "Disk taken by waiting telemetry windows."),
    _counter("drupelet_spool_dropped_windows_total", (), "Telemetry windows lost because the spool was full."),
    _gauge("drupelet_last_poll_timestamp_seconds", (), "Unix time of the last poll that the fleet answered."),
    _counter("device_throttle_events_total", ("reason",), "Times the board began to be held back, by reason."),
)

METRICS = {spec.name: spec for spec in (*GATEWAY, *DEVICE, *AGENT)}
