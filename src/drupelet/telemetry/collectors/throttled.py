"""Power and heat limits: `device_throttled{reason}` from the firmware and the kernel's undervoltage alarm."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from drupelet.telemetry.collectors.base import Machine, collector, gauge


@collector("throttled")
def collect(machine: Machine) -> Iterator[Metric]:
    """Yield 0 or 1 for every reason; nothing on a machine that cannot say, for unknown is not 0."""
    throttling = machine.sensors.throttling()
    if throttling is not None:
        yield gauge("device_throttled", {(reason,): float(now) for reason, now in throttling.labels.items()})
