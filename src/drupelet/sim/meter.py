"""What a simulated gateway measures: windows of drawn blocks, with latencies from a seeded model.

Each device has its own speed, which drifts over minutes as load and heat do; requests scatter around it. A release
multiplies all that by its own slowness and fails its own share of requests, so a good one changes nothing at all.
"""

from __future__ import annotations

import math
import random

from drupelet.sim.traits import Traits
from drupelet.telemetry.sketch import SketchBuilder
from drupelet.wire.control import Load, Route
from drupelet.wire.telemetry import RequestStats, Window

REQUESTS_A_SECOND = 6.0
SCATTER = 0.2
"""Standard deviation of a request's log latency."""
DRIFT = 0.3
"""How far a device's log latency wanders."""
DRIFT_S = 240.0


class Meter:
    """One device's measurements. Windows not yet taken are lost with the gateway, as the real ones are."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._speed = math.exp(self._random.gauss(0.0, 0.3))
        self._phase = self._random.uniform(0.0, 2.0 * math.pi)
        self._open: tuple[Route, Load, Traits, int] | None = None
        self._windows: list[Window] = []
        self._seq = 0

    def restarted(self) -> None:
        """Forget what the gateway had not handed over, and count anew."""
        self._open, self._windows, self._seq = None, [], 0

    def routed(self, route: Route, load: Load, traits: Traits, now_ms: int) -> None:
        """End the block that was measured, and begin the next one."""
        if self._open is not None:
            self._end(*self._open, now_ms)
        self._open = (route, load, traits, now_ms)

    def take(self, after: int, limit: int) -> tuple[Window, ...]:
        """Hand over finished windows."""
        self._windows = [window for window in self._windows if window.seq > after]
        return tuple(self._windows[:limit])

    def _end(self, route: Route, load: Load, traits: Traits, begun_ms: int, now_ms: int) -> None:
        counted_ms = now_ms - begun_ms - route.discard_ms
        if route.block is None or counted_ms <= 0:
            return
        self._seq += 1
        self._windows.append(
            Window(
                seq=self._seq, boot="gateway", started_at_ms=begun_ms, ended_at_ms=now_ms, elapsed_ms=now_ms - begun_ms,
                release=load.release, manifest=load.manifest, variant=load.variant, slot=route.slot, block=route.block,
                requests=(self._requests(counted_ms / 1000.0, traits, now_ms / 1000.0),),
            )
        )  # fmt: skip

    def _requests(self, seconds: float, traits: Traits, now_s: float) -> RequestStats:
        wandering = DRIFT * math.sin(self._phase + now_s / DRIFT_S)
        typical_s = 0.2 * self._speed * math.exp(wandering) * traits.slow
        count = max(1, round(seconds * REQUESTS_A_SECOND))
        errors = sum(self._random.random() < traits.errors for _ in range(count))
        duration, ttft, per_token = SketchBuilder(), SketchBuilder(), SketchBuilder()
        for _ in range(count - errors):
            whole = typical_s * math.exp(self._random.gauss(0.0, SCATTER))
            duration.add(whole)
            ttft.add(whole / 5)
            per_token.add(whole / 50)
        return RequestStats(
            bucket="0-63", ok=count - errors, errors=errors, duration=duration.sketch(), ttft=ttft.sketch(),
            per_token=per_token.sketch(),
        )  # fmt: skip
