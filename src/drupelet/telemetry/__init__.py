"""What a device measures and how it survives until somebody reads it: sketches, windows, spool, sensors, metrics."""

from drupelet.telemetry.sketch import SketchBuilder, mean, merge, quantile, values
from drupelet.telemetry.windows import RequestHandle, Serving, WindowRecorder

__all__ = ["RequestHandle", "Serving", "SketchBuilder", "WindowRecorder", "mean", "merge", "quantile", "values"]
