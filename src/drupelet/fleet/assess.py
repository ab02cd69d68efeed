"""From telemetry windows to the gate: which blocks make a pair, what each holds, and the verdict. Pure.

A pair is closed once, when both of its blocks have arrived, and stored under (device, index); it is never altered
afterwards, so a window that comes later can change no past evidence. Its time is the fleet's and never goes back.
Blocks of different orders of one rollout have different serials and are never mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from drupelet.gate import Arm, BlockStats, Canary, GatePolicy, Pair, Verdict, judge
from drupelet.wire.telemetry import GAMMA, Sketch, Window

ZERO_S = 1e-6
"""A duration measured as 0 counts as a microsecond: the gate compares logarithms."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A stored window with a block label."""

    device: str
    window: Window


@dataclass(frozen=True, slots=True)
class ClosedPair:
    """A pair and what the device called it."""

    pair: Pair
    serial: int
    number: int
    """The device's own count of pairs under that serial."""


def close(
    arrived: Iterable[Arrived], *, release: str, next_index: dict[str, int], closed: frozenset[tuple[str, int, int]],
    hardware: dict[str, str], not_before_s: float, now_s: float,
) -> tuple[ClosedPair, ...]:  # fmt: skip
    """Return the pairs whose two blocks are there, in a stable order.

    `next_index` gives each device's next index; `closed` holds (device, serial, number) of pairs closed before, whose
    late windows are ignored. `not_before_s` is the time of the last closed pair.
    """
    groups: dict[tuple[str, int, int], list[Window]] = {}
    for item in arrived:
        block = item.window.block
        if block is not None:
            groups.setdefault((item.device, block.serial, block.pair), []).append(item.window)
    indexes = dict(next_index)
    found: list[ClosedPair] = []
    for (device, serial, number), windows in sorted(groups.items()):
        if (device, serial, number) in closed:
            continue
        new, old = _arm(windows, "new"), _arm(windows, "old")
        if not new or not old or any(w.release != release for w in new) or any(w.release == release for w in old):
            continue
        block = new[0].block
        if block is None or any(w.block is None or w.block.first != block.first for w in windows):
            continue  # a device that contradicts itself about its coin brings no evidence
        index = indexes.get(device, 0)
        indexes[device] = index + 1
        found.append(
            ClosedPair(
                pair=Pair(
                    device=device,
                    index=index,
                    first=Arm(block.first),
                    new=stats(new),
                    old=stats(old),
                    complete_at_s=max(now_s, not_before_s),
                    hardware=hardware.get(device, ""),
                ),
                serial=serial,
                number=number,
            )
        )
    return tuple(found)


def _arm(windows: Sequence[Window], arm: str) -> list[Window]:
    return [w for w in windows if w.block is not None and w.block.arm == arm]


def stats(windows: Iterable[Window]) -> BlockStats:
    """Return what the windows of one block hold, over all prompt buckets: both arms answer the same mix."""
    parts = [part for window in windows for part in window.requests]
    return BlockStats(
        requests=sum(part.ok + part.errors for part in parts),
        errors=sum(part.errors for part in parts),
        latency=histogram(part.duration for part in parts),
        ttft=histogram(part.ttft for part in parts),
        token_time=histogram(part.per_token for part in parts),
    )


def histogram(sketches: Iterable[Sketch]) -> tuple[tuple[float, int], ...]:
    """Return merged sketches as (value in seconds, count); bins without a count are left out."""
    merged: dict[int, int] = {}
    zeros = 0
    for sketch in sketches:
        zeros += sketch.zeros
        for index, count in sketch.bins:
            merged[index] = merged.get(index, 0) + count
    bins = tuple((max(2.0 * GAMMA**index / (GAMMA + 1.0), ZERO_S), n) for index, n in sorted(merged.items()) if n)
    return ((ZERO_S, zeros), *bins) if zeros else bins


@dataclass(frozen=True, slots=True)
class Watched:
    """A canary as the gate needs it. `last_window_ms` is when its newest telemetry arrived, by the fleet's clock."""

    device: str
    hardware: str
    last_window_ms: int | None


def assess(
    policy: GatePolicy, pairs: Sequence[Pair], *, canaries: Iterable[Watched], stage_started_ms: int, now_ms: int
) -> Verdict:
    """Return the gate's verdict on the present stage."""
    stage = [
        Canary(
            device=canary.device,
            hardware=canary.hardware,
            silent_s=None if canary.last_window_ms is None else max(0, now_ms - canary.last_window_ms) / 1000.0,
        )
        for canary in canaries
    ]
    return judge(policy, pairs, canaries=stage, elapsed_s=max(0, now_ms - stage_started_ms) / 1000.0)


class PairRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pair as stored: the two blocks, each (requests, errors, latency, ttft, token_time)."""

    new: BlockStats
    old: BlockStats


def encode_pair(pair: Pair) -> bytes:
    """Return the stored form of a pair's blocks."""
    return msgspec.json.encode(PairRecord(new=pair.new, old=pair.old))


_RECORDS = msgspec.json.Decoder(PairRecord)


def decode_pair(data: bytes) -> PairRecord:
    """Return the blocks of a stored pair."""
    return _RECORDS.decode(data)
