"""From the store to the gate and back: closing pairs, asking for a verdict, keeping what was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, tuple_, update

from drupelet.fleet.assess import Arrived, Watched, assess, close, decode_pair, encode_pair
from drupelet.fleet.loading import Loaded
from drupelet.fleet.store.schema import pairs, verdicts, windows
from drupelet.gate import Arm, Pair, Verdict
from drupelet.wire.codec import decode_as
from drupelet.wire.telemetry import Window

VERDICT_EVERY_MS = 10_000
"""A verdict that says the same kind is kept at most this often, for the chart and the record."""


def close_pairs(connection: Connection, loaded: Loaded, *, now: int) -> int:
    """Make pairs of the blocks that have arrived and return how many."""
    exposed = {name: known for name, known in loaded.known.items() if known.exposed}
    if not exposed:
        return 0
    since = min(known.exposed_at or 0 for known in exposed.values())
    rows = connection.execute(
        select(windows.c.device, windows.c.last_seq, windows.c.windows_json)
        .where(windows.c.device.in_(exposed), windows.c.blocks.is_(True), windows.c.received_at >= since)
        .order_by(windows.c.device, windows.c.last_seq)
    ).all()
    arrived = [
        Arrived(device=row.device, window=window)
        for row in rows
        for window in decode_as(list[Window], row.windows_json)
        if window.block is not None and window.block.serial >= exposed[row.device].first_serial
    ]
    if not arrived:
        return 0
    number = loaded.row.id
    before = connection.execute(
        select(pairs.c.device, pairs.c.idx, pairs.c.serial, pairs.c.number).where(pairs.c.rollout == number)
    ).all()
    latest = connection.execute(select(func.max(pairs.c.complete_at_s)).where(pairs.c.rollout == number)).scalar()
    closed = frozenset((row.device, row.serial, row.number) for row in before)
    next_index: dict[str, int] = {}
    for row in before:
        next_index[row.device] = max(next_index.get(row.device, 0), row.idx + 1)
    found = close(
        arrived,
        release=loaded.row.release,
        next_index=next_index,
        closed=closed,
        hardware={name: known.board for name, known in exposed.items()},
        not_before_s=float(latest or 0.0),
        now_s=now / 1000.0,
    )
    if found:
        connection.execute(
            insert(pairs),
            [
                {
                    "rollout": number, "device": c.pair.device, "idx": c.pair.index, "serial": c.serial,
                    "number": c.number, "first": c.pair.first.value, "hardware": c.pair.hardware,
                    "complete_at_s": c.pair.complete_at_s, "pair_json": encode_pair(c.pair),
                }
                for c in found
            ],
        )  # fmt: skip
        _done_with(connection, rows, closed | {(c.pair.device, c.serial, c.number) for c in found})
    return len(found)


def _done_with(connection: Connection, rows: Sequence[Any], closed: frozenset[tuple[str, int, int]]) -> None:
    """Mark the rows whose blocks are all in closed pairs, so that they are not read again."""
    done = []
    for row in rows:
        blocks = [w.block for w in decode_as(list[Window], row.windows_json) if w.block is not None]
        if all((row.device, block.serial, block.pair) in closed for block in blocks):
            done.append((row.device, row.last_seq))
    if done:
        connection.execute(
            update(windows).where(tuple_(windows.c.device, windows.c.last_seq).in_(done)).values(blocks=False)
        )


def stored_pairs(connection: Connection, number: int) -> list[Pair]:
    """Return the closed pairs of a rollout."""
    rows = connection.execute(select(pairs).where(pairs.c.rollout == number)).all()
    return [_pair(row) for row in rows]


def _pair(row: Any) -> Pair:
    held = decode_pair(row.pair_json)
    return Pair(
        device=row.device,
        index=row.idx,
        first=Arm(row.first),
        new=held.new,
        old=held.old,
        complete_at_s=row.complete_at_s,
        hardware=row.hardware,
    )


def look(connection: Connection, loaded: Loaded, *, now: int) -> Verdict:
    """Return the gate's verdict on the rollout now."""
    canaries = [
        Watched(device=name, hardware=known.board, last_window_ms=_since(known.windows_at, known.exposed_at))
        for name, known in loaded.known.items()
        if known.exposed
    ]
    return assess(
        loaded.policy.gate_policy(),
        stored_pairs(connection, loaded.row.id),
        canaries=canaries,
        stage_started_ms=loaded.row.stage_at,
        now_ms=now,
    )


def _since(windows_at: int | None, exposed_at: int | None) -> int | None:
    """Telemetry from before the device was exposed says nothing about the release."""
    return windows_at if windows_at is not None and exposed_at is not None and windows_at >= exposed_at else None


def keep_verdict(connection: Connection, loaded: Loaded, verdict: Verdict, *, now: int) -> None:
    """Keep a verdict when its kind is new, or when the last one kept is old and the evidence has grown."""
    last = connection.execute(
        select(verdicts.c.at, verdicts.c.kind, verdicts.c.stage, verdicts.c.verdict_json)
        .where(verdicts.c.rollout == loaded.row.id)
        .order_by(verdicts.c.id.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.kind == verdict.kind.value and last.stage == loaded.row.stage:
        counted = msgspec.json.decode(last.verdict_json).get("pairs")
        if now - last.at < VERDICT_EVERY_MS or counted == verdict.pairs:
            return
    connection.execute(
        insert(verdicts).values(
            rollout=loaded.row.id, at=now, stage=loaded.row.stage, kind=verdict.kind.value,
            verdict_json=msgspec.json.encode(verdict),
        )
    )  # fmt: skip
