"""This process: resident memory and CPU time, under the names every Prometheus client uses."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from drupelet.telemetry.collectors.base import Machine, collector, counter, gauge


@collector("process")
def collect(machine: Machine) -> Iterator[Metric]:
    """Yield what the process uses; nothing where /proc does not show it."""
    use = machine.sensors.process(machine.pid)
    if use is not None:
        yield gauge("process_resident_memory_bytes", {(): float(use.resident_bytes)})
        yield counter("process_cpu_seconds_total", {(): use.cpu_s})
