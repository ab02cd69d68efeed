"""What is read from the machine when somebody scrapes: one collector a file, each with its own success and duration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from drupelet.core.errors import NotFound
from drupelet.telemetry.collectors import memory, process, temperature, throttled
from drupelet.telemetry.collectors.base import COLLECTORS, Machine, gauge
from drupelet.telemetry.sensors import SensorFailed

__all__ = ["COLLECTORS", "DeviceCollector", "Machine", "memory", "process", "temperature", "throttled"]


class DeviceCollector(Collector):
    """Runs collectors at every scrape. One that fails says so by a 0 and keeps none of the others from speaking.

    A scrape may wait for `vcgencmd` (2 s at most), so an event loop scrapes in a thread.
    """

    def __init__(
        self, machine: Machine, *, clock: Callable[[], float], names: Sequence[str] = tuple(COLLECTORS)
    ) -> None:
        """`clock` is monotonic, in seconds. Raises `NotFound` for a collector that does not exist."""
        for name in names:
            if name not in COLLECTORS:
                raise NotFound(f"there is no collector {name!r}", fix=f"choose from {', '.join(sorted(COLLECTORS))}")
        self._machine, self._clock, self._names = machine, clock, tuple(names)

    def collect(self) -> Iterable[Metric]:
        """Yield every family of every collector, then how each of them did."""
        return tuple(self._collect())

    def _collect(self) -> Iterator[Metric]:
        success: dict[tuple[str, ...], float] = {}
        duration: dict[tuple[str, ...], float] = {}
        for name in self._names:
            began = self._clock()
            try:
                families = tuple(COLLECTORS[name](self._machine))
                success[(name,)] = 1.0
            except SensorFailed:
                families = ()
                success[(name,)] = 0.0
            duration[(name,)] = max(0.0, self._clock() - began)
            yield from families
        yield gauge("drupelet_collector_success", success)
        yield gauge("drupelet_collector_duration_seconds", duration)
