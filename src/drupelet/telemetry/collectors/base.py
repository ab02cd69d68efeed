"""What a collector is, and the register in which each enters itself by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from drupelet.telemetry.registry import METRICS
from drupelet.telemetry.sensors import Sensors

Collect = Callable[["Machine"], Iterator[Metric]]
COLLECTORS: dict[str, Collect] = {}


@dataclass(frozen=True, slots=True)
class Machine:
    """What collectors look at."""

    sensors: Sensors
    pid: int
    """This process."""


def collector(name: str) -> Callable[[Collect], Collect]:
    """Enter a collector under `name`, the value of its `collector` label."""

    def enter(collect: Collect) -> Collect:
        COLLECTORS[name] = collect
        return collect

    return enter


def gauge(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a gauge of the registry with a value for each tuple of label values."""
    spec = METRICS[name]
    family = GaugeMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def counter(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter of the registry with a total for each tuple of label values."""
    spec = METRICS[name]
    family = CounterMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
