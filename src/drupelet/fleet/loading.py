"""Loading what is known of a rollout, in the form that `plan` decides by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from drupelet.core.states import Mode, RolloutState
from drupelet.fleet.machine import Event
from drupelet.fleet.plan import Command, Member, Model, PausedBy
from drupelet.fleet.policy import RolloutPolicy, policy_of
from drupelet.fleet.standing import standing, words
from drupelet.fleet.store.schema import commands, devices, members, releases, rollouts
from drupelet.gate import Verdict
from drupelet.wire.codec import decode_as
from drupelet.wire.device_api import DeviceStatus
from drupelet.wire.orders import Order


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one selected device beyond what the plan needs."""

    device: str
    board: str
    rank: int
    stage: int | None
    exposed: bool
    exposed_at: int | None
    first_serial: int
    order_serial: int
    previous: str
    stratum: str
    status: DeviceStatus | None
    seen_at: int | None
    windows_at: int | None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rollout, its release and policy, its devices, and the plan's model of all that."""

    row: Any
    release: Any
    policy: RolloutPolicy
    known: dict[str, Known]
    model: Model

    def with_verdict(self, verdict: Verdict) -> Loaded:
        """Return the same with the gate's verdict."""
        return replace(self, model=replace(self.model, verdict=verdict))


_MEMBERS = (
    select(
        members, devices.c.board, devices.c.simulated,
        devices.c.status_json, devices.c.seen_at, devices.c.windows_at, devices.c.order_json,
        devices.c.order_serial, devices.c.order_rollout, devices.c.state.label("device_state"),
        releases.c.condemned_at.label("previous_condemned_at"), releases.c.id.label("previous_known"),
    )
    .join(devices, devices.c.id == members.c.device)
    .outerjoin(releases, releases.c.id == members.c.previous)
    .order_by(members.c.rank)
)  # fmt: skip


def load(connection: Connection, number: int, *, now: int) -> Loaded | None:
    """Return everything about a rollout, None if there is no such rollout. Removed devices no longer count."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == number)).one_or_none()
    if row is None:
        return None
    release = connection.execute(select(releases).where(releases.c.id == row.release)).one()
    policy = policy_of(row.policy_json, where=f"policy of rollout {number}")
    drawn = connection.execute(_MEMBERS.where(members.c.rollout == number)).all()
    asked = connection.execute(
        select(commands).where(commands.c.rollout == number, commands.c.done_at.is_(None)).order_by(commands.c.id)
    ).all()
    known: dict[str, Known] = {}
    listed: list[Member] = []
    for item in drawn:
        if item.device_state != "approved":
            continue
        status = decode_as(DeviceStatus, item.status_json) if item.status_json else None
        known[item.device] = _known(item, status)
        listed.append(_member(item, status, row))
    model = Model(
        state=RolloutState(row.state),
        stage=row.stage,
        caps=msgspec.json.decode(row.caps_json, type=tuple[int, ...]),
        direct=policy.direct,
        paused_by=PausedBy(row.paused_by),
        stage_started_ms=row.stage_at,
        now_ms=now,
        stage_ms_min=policy.stage_ms_min,
        trial_failures_max=policy.trial_failures_max,
        staged_share=policy.staged_share,
        completed_share=policy.completed_share,
        members=tuple(listed),
        commands=tuple(Command(c.id, Event(c.event), c.by, c.reason) for c in asked),
    )
    return Loaded(row=row, release=release, policy=policy, known=known, model=model)


def _known(item: Row[Any], status: DeviceStatus | None) -> Known:
    return Known(
        device=item.device,
        board=item.board,
        rank=item.rank,
        stage=item.stage,
        exposed=item.exposed_at is not None,
        exposed_at=item.exposed_at,
        first_serial=item.first_serial,
        order_serial=item.order_serial,
        previous=item.previous,
        stratum=item.stratum,
        status=status,
        seen_at=item.seen_at,
        windows_at=item.windows_at,
        simulated=item.simulated,
    )


def _member(item: Row[Any], status: DeviceStatus | None, rollout: Row[Any]) -> Member:
    mode = _standing_mode(item, rollout)
    exposed = item.exposed_at is not None
    where = standing(
        status,
        release=rollout.release,
        exposed=exposed,
        mode=mode,
        first_serial=item.first_serial,
        serial=item.order_serial,
        failure=item.failure,
    )
    said = words(status.reason, status.detail) if status else ""
    return Member(
        device=item.device,
        rank=item.rank,
        standing=where,
        exposed=exposed,
        mode=mode,
        has_previous=item.previous_known is not None and item.previous_condemned_at is None,
        failure=item.failure or said,
        seen_ms=item.seen_at,
    )


def _standing_mode(item: Row[Any], rollout: Row[Any]) -> Mode | None:
    """Return what the standing order means to this rollout: any order away from its release is a way back."""
    if item.order_json is None or item.order_rollout != rollout.id:
        return None
    order = decode_as(Order, item.order_json)
    return order.mode if order.release == rollout.release else Mode.REVERT
