"""The machine's memory, kills for want of it, and when it booted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from drupelet.telemetry.collectors.base import Machine, collector, counter, gauge


@collector("memory")
def collect(machine: Machine) -> Iterator[Metric]:
    """Yield bytes by kind, and the totals since boot where the kernel counts them."""
    memory = machine.sensors.memory()
    yield gauge("device_memory_bytes", {(kind,): float(value) for kind, value in memory.bytes_by_kind.items()})
    if memory.oom_kills is not None:
        yield counter("device_oom_kills_total", {(): float(memory.oom_kills)})
    if memory.major_page_faults is not None:
        yield counter("device_major_page_faults_total", {(): float(memory.major_page_faults)})
    booted = machine.sensors.boot_time_s()
    if booted is not None:
        yield gauge("device_boot_time_seconds", {(): float(booted)})
