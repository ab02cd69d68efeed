"""Telemetry windows: what one device measured of one release over a short time, in a form that merges exactly.

Latencies travel as DDSketch bins (logarithmic, 1% relative error), never as averages or quantiles, so that the
fleet's p95 is the p95 of all requests. A window belongs to one release and, on a canary, to one drawn block.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason
from drupelet.wire.codec import Message
from drupelet.wire.fields import (
    BootId,
    Bytes,
    Celsius,
    Count,
    DigestText,
    EpochMs,
    Label,
    NameText,
    NonNegative,
    ReleaseText,
)

RELATIVE_ERROR = 0.01
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
"""Bin `i` holds values in (GAMMA**(i-1), GAMMA**i]; its representative is 2 * GAMMA**i / (GAMMA + 1)."""
BINS_MAX = 2048
PROMPT_BUCKETS = ("0-63", "64-255", "256-1023", "1024-4095", "4096+")
"""Prompt tokens; latency is compared within a bucket only."""

PromptBucket = Literal["0-63", "64-255", "256-1023", "1024-4095", "4096+"]


def prompt_bucket(tokens: int) -> PromptBucket:
    """Return the bucket of a prompt of `tokens` tokens."""
    for bound, bucket in zip((64, 256, 1024, 4096), PROMPT_BUCKETS, strict=False):
        if tokens < bound:
            return bucket  # type: ignore[return-value]
    return "4096+"


class Sketch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DDSketch with relative error 1%: bins of positive values, the count of zeros, the exact sum."""

    bins: Annotated[tuple[tuple[Annotated[int, Meta(ge=-4096, le=4096)], Count], ...], Meta(max_length=BINS_MAX)] = ()
    zeros: Count = 0
    sum: NonNegative = 0.0

    @property
    def count(self) -> int:
        """How many values it holds."""
        return self.zeros + sum(n for _, n in self.bins)


class RequestStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The requests of one prompt bucket in one window. Times are seconds."""

    bucket: PromptBucket
    ok: Count = 0
    errors: Count = 0
    abandoned: Count = 0
    """The client hung up before the answer was whole: neither answered nor failed."""
    duration: Sketch = Sketch()
    ttft: Sketch = Sketch()
    per_token: Sketch = Sketch()
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    decode_seconds: NonNegative = 0.0


class BlockLabel(msgspec.Struct, frozen=True, kw_only=True):
    """Which drawn block a window belongs to. `first` says which arm the coin put first in this pair."""

    serial: Annotated[int, Meta(ge=1, le=2**53)]
    """The order's serial: a block of an older order is no evidence for this one."""
    pair: Annotated[int, Meta(ge=0, le=10_000)]
    arm: Literal["new", "old"]
    first: Literal["new", "old"]


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured of one release from `started_at_ms` to `ended_at_ms` (device clock; order by `seq`).

    `seq` grows with every window of a device and never repeats, with gaps after a restart; `elapsed_ms` is from a
    monotonic clock.
    """

    seq: Annotated[int, Meta(ge=1, le=2**53)]
    boot: BootId
    started_at_ms: EpochMs
    ended_at_ms: EpochMs
    elapsed_ms: Count
    release: ReleaseText | Literal[""] = ""
    manifest: DigestText | Literal[""] = ""
    variant: NameText | Literal[""] = ""
    slot: Slot | None = None
    block: BlockLabel | None = None
    requests: Annotated[tuple[RequestStats, ...], Meta(max_length=len(PROMPT_BUCKETS))] = ()
    exits: dict[ExitReason, Count] = {}
    """Child exits in the window by reason; reasons that did not happen are left out."""
    memory_bytes: Bytes = 0
    """Largest resident size of the child seen in the window."""
    temperature_celsius: Celsius | None = None
    throttled: Annotated[dict[Label, bool], Meta(max_length=8)] = {}


class WindowBatch(Message, frozen=True, kw_only=True):
    """Windows as spooled and as sent, oldest first."""

    FORMAT: ClassVar[str] = "drupelet.windows/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024 * 1024

    format: str = "drupelet.windows/1"
    windows: Annotated[tuple[Window, ...], Meta(max_length=1000)] = ()
