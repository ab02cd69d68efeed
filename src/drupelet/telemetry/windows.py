"""Which window a request belongs to: the gateway's bookkeeping of what each release did to its users.

The theory. Evidence about a release comes from blocks that a coin drew, so a request must land in the right block or
in none, by rules that the release under test cannot influence:

- A request belongs to the block during which it *arrived*: not before the warm-up after the route's change has passed
  (`discard_ms`), not after the next change. Counting by its end would let slow requests slip into the next block.
- It counts there only if the routed slot served it. A conversation that stays on the other slot is no evidence.
- A block's window is emitted whole, when its last request has ended. A request that has not ended after
  `request_s_max` counts as failed; so a block is late by that much at most, and loses nothing, least of all the slow.
- Everything else (no block, warm-up, sticky conversations) is counted in the plain window of the release that served
  it, when it ended; plain windows are cut when the agent asks, or when they are `window_s_max` old.

A request that was refused or failed before any slot took it counts against the routed release. Pure over the clock:
`now` is in seconds of any monotonic clock. Used from one thread or one event loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason
from drupelet.telemetry.sketch import SketchBuilder
from drupelet.wire.codec import encode
from drupelet.wire.telemetry import PROMPT_BUCKETS, BlockLabel, PromptBucket, RequestStats, Window, prompt_bucket

WINDOW_S_MAX = 60.0
"""A plain window is no longer than this, even when no agent asks."""
REQUEST_S_MAX = 150.0
"""By default a block waits this long for its last request."""
WINDOWS_HELD_MAX = 2_000
"""Finished windows kept for an agent that does not ask: a day of plain ones, some megabytes. Then the oldest goes."""
ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Of windows in one answer: half of the control socket's longest line."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Whose measurements these are: a release as it lies in a slot."""

    slot: Slot
    release: str = ""
    """`kiosk/1.2`."""
    manifest: str = ""
    """`sha256:...` of the release manifest."""
    variant: str = ""


class _Bucket:
    """The counts of one prompt bucket in one window."""

    __slots__ = ("abandoned", "completion", "decode_s", "duration", "errors", "ok", "per_token", "prompt", "ttft")

    def __init__(self) -> None:
        self.ok = self.errors = self.abandoned = self.prompt = self.completion = 0
        self.decode_s = 0.0
        self.duration, self.ttft, self.per_token = SketchBuilder(), SketchBuilder(), SketchBuilder()

    def stats(self, bucket: PromptBucket) -> RequestStats:
        return RequestStats(
            bucket=bucket,
            ok=self.ok,
            errors=self.errors,
            abandoned=self.abandoned,
            duration=self.duration.sketch(),
            ttft=self.ttft.sketch(),
            per_token=self.per_token.sketch(),
            prompt_tokens=self.prompt,
            completion_tokens=self.completion,
            decode_seconds=self.decode_s,
        )


@dataclass(slots=True, eq=False)
class _Filling:
    """A window that is being filled. `ended_s` is set when nothing new may arrive in it."""

    serving: Serving
    block: BlockLabel | None
    started_s: float
    ended_s: float | None = None
    waiting_for: set[RequestHandle] = field(default_factory=set)
    buckets: dict[PromptBucket, _Bucket] = field(default_factory=dict)
    exits: dict[ExitReason, int] = field(default_factory=dict)
    memory_bytes: int = 0

    @property
    def empty(self) -> bool:
        return not (self.buckets or self.exits)

    def bucket(self, prompt_tokens: int) -> _Bucket:
        return self.buckets.setdefault(prompt_bucket(prompt_tokens), _Bucket())


class RequestHandle:
    """One request from its arrival to its end. The first of `ended` and `abandoned` counts; later calls do nothing."""

    __slots__ = ("_block", "_done", "_first_token_s", "_recorder", "arrived_s", "serving")

    def __init__(self, recorder: WindowRecorder, serving: Serving | None, block: _Filling | None, now: float) -> None:
        self._recorder = recorder
        self._block = block
        self._first_token_s: float | None = None
        self._done = False
        self.arrived_s = now
        self.serving = serving

    @property
    def block(self) -> BlockLabel | None:
        """The drawn block it counts for, if any."""
        return self._block.block if self._block else None

    def dispatched(self, serving: Serving) -> None:
        """Say which slot serves it. On another slot than the block's, it is no evidence for the block any more."""
        self.serving = serving
        if self._block and self._block.serving != serving:
            self._block.waiting_for.discard(self)
            self._recorder._emit_if_whole(self._block)
            self._block = None

    def first_token(self, now: float) -> None:
        """Say when the first token came; only the first call counts."""
        if self._first_token_s is None:
            self._first_token_s = now

    def ended(
        self,
        now: float,
        *,
        ok: bool,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        decode_s: float | None = None,
    ) -> None:
        """Count it as answered or failed. `decode_s` is the child's own; else the time since the first token."""
        if (window := self._finish(now)) is None:
            return
        bucket = window.bucket(prompt_tokens)
        if not ok:
            bucket.errors += 1
        else:
            self._count_answer(bucket, now, completion_tokens, decode_s)
            bucket.prompt += prompt_tokens
        self._recorder._emit_if_whole(window)

    def abandoned(self, now: float, *, prompt_tokens: int = 0) -> None:
        """Count it as given up by the client: neither answered nor failed."""
        if (window := self._finish(now)) is not None:
            window.bucket(prompt_tokens).abandoned += 1
            self._recorder._emit_if_whole(window)

    def _finish(self, now: float) -> _Filling | None:
        if self._done:
            return None
        self._done = True
        if self._block is None:
            return self._recorder._plain(self.serving, now) if self.serving else None
        self._block.waiting_for.discard(self)
        return self._block

    def _count_answer(self, bucket: _Bucket, now: float, tokens: int, decode_s: float | None) -> None:
        bucket.ok += 1
        bucket.completion += tokens
        bucket.duration.add(max(0.0, now - self.arrived_s))
        if self._first_token_s is not None:
            bucket.ttft.add(max(0.0, self._first_token_s - self.arrived_s))
            if decode_s is None:
                decode_s = max(0.0, now - self._first_token_s)
        if decode_s is not None:
            bucket.decode_s += decode_s
            if tokens > 1:
                bucket.per_token.add(decode_s / (tokens - 1))


class WindowRecorder:
    """Sorts requests, exits and memory into windows and keeps the finished ones until the agent has taken them.

    `seq` starts at 1 for each recorder and grows by one for every finished window.
    """

    def __init__(
        self,
        *,
        boot: str,
        now: float,
        epoch_ms: int,
        window_s_max: float = WINDOW_S_MAX,
        request_s_max: float = REQUEST_S_MAX,
        windows_held_max: int = WINDOWS_HELD_MAX,
    ) -> None:
        self._boot = boot
        self._anchor_s, self._anchor_ms = now, epoch_ms
        self._window_s_max = window_s_max
        self._request_s_max = request_s_max
        self._windows_held_max = windows_held_max
        self._routed: Serving | None = None
        self._block: _Filling | None = None
        self._closed_blocks: list[_Filling] = []
        self._plain_windows: dict[Serving, _Filling] = {}
        self._finished: deque[tuple[Window, int]] = deque()
        self._seq = 0
        self.dropped = 0
        """Finished windows lost because no agent came for them."""

    @property
    def routed(self) -> Serving | None:
        """What new conversations are sent to."""
        return self._routed

    @property
    def block(self) -> BlockLabel | None:
        """The block being served, its warm-up included."""
        return self._block.block if self._block else None

    def anchor(self, *, now: float, epoch_ms: int) -> None:
        """Say what the wall clock shows: a device without one of its own learns the time after it has booted."""
        self._anchor_s, self._anchor_ms = now, epoch_ms

    def route(self, serving: Serving, *, now: float, block: BlockLabel | None = None, discard_ms: int = 0) -> None:
        """Begin sending new conversations to `serving`; ends the block before and the plain windows.

        The same route and block again change nothing, so that an agent that lost the answer may repeat itself.
        """
        if serving == self._routed and block == self.block:
            return
        self._cut_older_than(0.0, now)
        self._end_block(now)
        self._routed = serving
        if block is None:
            self._plain(serving, now)
        else:
            self._block = _Filling(serving, block, started_s=now + discard_ms / 1000)

    def stop(self, *, now: float) -> None:
        """Nothing is routed any more: ends the block."""
        self._end_block(now)
        self._routed = None

    def arrived(self, now: float, *, serving: Serving | None = None) -> RequestHandle:
        """Return the handle of a request that arrived now, to be served by `serving` or else by what is routed."""
        serving = serving or self._routed
        block = self._block
        if block is not None and (now < block.started_s or serving != block.serving):
            block = None
        handle = RequestHandle(self, serving, block, now)
        if block is not None:
            block.waiting_for.add(handle)
        return handle

    def exited(self, serving: Serving, reason: ExitReason, *, now: float) -> None:
        """Count the end of the child in `serving`'s slot."""
        window = self._current(serving, now)
        window.exits[reason] = window.exits.get(reason, 0) + 1

    def memory(self, serving: Serving, resident_bytes: int, *, now: float) -> None:
        """Note the child's resident size; windows keep the largest."""
        window = self._current(serving, now)
        window.memory_bytes = max(window.memory_bytes, resident_bytes)

    def cut(self, now: float) -> None:
        """End the plain windows now. A block is never cut: it ends at the next route and is emitted whole."""
        self._release_overdue(now)
        self._cut_older_than(0.0, now)

    def tick(self, now: float) -> None:
        """End plain windows that are old enough and blocks whose last request is overdue. Call about once a second."""
        self._release_overdue(now)
        self._cut_older_than(self._window_s_max, now)

    def take(self, after: int, limit: int, *, bytes_max: int = ANSWER_BYTES_MAX) -> tuple[Window, ...]:
        """Forget windows up to `after`; return the oldest finished ones, at most `limit` and about `bytes_max`."""
        while self._finished and self._finished[0][0].seq <= after:
            self._finished.popleft()
        taken: list[Window] = []
        total = 0
        for window, size in self._finished:
            total += size
            if len(taken) == limit or (taken and total > bytes_max):
                break
            taken.append(window)
        return tuple(taken)

    def _end_block(self, now: float) -> None:
        if (block := self._block) is not None:
            block.ended_s = now
            self._block = None
            self._closed_blocks.append(block)
            self._emit_if_whole(block)

    def _plain(self, serving: Serving, now: float) -> _Filling:
        if (window := self._plain_windows.get(serving)) is None:
            window = self._plain_windows[serving] = _Filling(serving, None, started_s=now)
        return window

    def _current(self, serving: Serving, now: float) -> _Filling:
        block = self._block
        if block is not None and block.serving == serving and now >= block.started_s:
            return block
        return self._plain(serving, now)

    def _emit_if_whole(self, window: _Filling) -> None:
        """Emit a block that has ended and waits for no request any more."""
        if window.ended_s is not None and not window.waiting_for and window in self._closed_blocks:
            self._closed_blocks.remove(window)
            self._emit(window, window.ended_s)

    def _release_overdue(self, now: float) -> None:
        for block in tuple(self._closed_blocks):
            if block.ended_s is not None and now - block.ended_s >= self._request_s_max:
                for handle in tuple(block.waiting_for):
                    handle.ended(now, ok=False)

    def _cut_older_than(self, age_s: float, now: float) -> None:
        for serving, window in tuple(self._plain_windows.items()):
            if now - window.started_s < age_s:
                continue
            # An empty window of what is serving says "alive and idle"; of anything else it says nothing.
            idle = serving == self._routed and self._block is None
            if not window.empty or (idle and now > window.started_s):
                self._emit(window, now)
            del self._plain_windows[serving]
            if idle:
                self._plain(serving, now)

    def _emit(self, window: _Filling, ended_s: float) -> None:
        self._seq += 1
        started_s = min(window.started_s, ended_s)
        serving = window.serving
        made = Window(
            seq=self._seq,
            boot=self._boot,
            started_at_ms=self._epoch_ms(started_s),
            ended_at_ms=self._epoch_ms(ended_s),
            elapsed_ms=round((ended_s - started_s) * 1000),
            release=serving.release,
            manifest=serving.manifest,
            variant=serving.variant,
            slot=serving.slot,
            block=window.block,
            requests=tuple(window.buckets[name].stats(name) for name in _BUCKETS if name in window.buckets),
            exits=dict(window.exits),
            memory_bytes=window.memory_bytes,
        )
        self._finished.append((made, len(encode(made))))
        if len(self._finished) > self._windows_held_max:
            self._finished.popleft()
            self.dropped += 1

    def _epoch_ms(self, now: float) -> int:
        return max(0, self._anchor_ms + round((now - self._anchor_s) * 1000))


_BUCKETS: tuple[PromptBucket, ...] = msgspec.convert(PROMPT_BUCKETS, tuple[PromptBucket, ...])
