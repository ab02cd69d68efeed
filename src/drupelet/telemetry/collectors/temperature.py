"""Heat: `device_temperature_celsius{sensor}` from the kernel's thermal zones."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from drupelet.telemetry.collectors.base import Machine, collector, gauge


@collector("temperature")
def collect(machine: Machine) -> Iterator[Metric]:
    """Yield the temperature of every sensor, in degrees Celsius."""
    yield gauge(
        "device_temperature_celsius", {(name,): value for name, value in machine.sensors.temperatures().items()}
    )
