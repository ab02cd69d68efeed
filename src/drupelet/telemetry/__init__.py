"""What a device measures and how it survives until somebody reads it: sketches, windows, spool, sensors, metrics.

The names below are light. Metrics need `prometheus_client`: import `telemetry.metrics` and `telemetry.collectors`
where they are exposed.
"""

from drupelet.telemetry.sensors import Memory, PiSensors, Reading, SensorFailed, Sensors, Throttle, Throttling, read_all
from drupelet.telemetry.sketch import SketchBuilder, mean, merge, quantile, values
from drupelet.telemetry.spool import Spool
from drupelet.telemetry.throttle import ThrottleHistory, ThrottleLog
from drupelet.telemetry.windows import RequestHandle, Serving, WindowRecorder

__all__ = [
    "Memory",
    "PiSensors",
    "Reading",
    "RequestHandle",
    "SensorFailed",
    "Sensors",
    "Serving",
    "SketchBuilder",
    "Spool",
    "Throttle",
    "ThrottleHistory",
    "ThrottleLog",
    "Throttling",
    "WindowRecorder",
    "mean",
    "merge",
    "quantile",
    "read_all",
    "values",
]
