"""Rows into views. Pure: what is shown of a thing is decided here, in one place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from drupelet.core.states import Reason, RolloutState, UpdateState
from drupelet.fleet.intake import believed
from drupelet.fleet.loading import Loaded
from drupelet.fleet.machine import OPERATOR_EVENTS, allows
from drupelet.fleet.plan import Standing, waits_for
from drupelet.fleet.policy import RolloutPolicy
from drupelet.fleet.standing import committed_release, serving_release, words
from drupelet.fleet.views import (
    Attention,
    AuditView,
    DevicePage,
    DeviceView,
    EventView,
    MemberView,
    OrderView,
    ReleaseView,
    RolloutView,
    SeriesPoint,
    SlotView,
    StageView,
    TelemetryView,
    VariantView,
    VerdictView,
    WhyView,
)
from drupelet.fleet.why import Case, spoken, why
from drupelet.gate.verdict import Finding
from drupelet.telemetry.sketch import merge, quantile
from drupelet.wire.codec import decode_as
from drupelet.wire.device_api import DeviceEvent, DeviceStatus, Hardware
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order
from drupelet.wire.telemetry import Window

SERIES_MAX = 300
"""Windows of a device that its page shows, the newest."""
RECENT_MS = 3_600_000
"""A rollout that ended badly asks for attention this long."""


def hardware_of(row: Any) -> Hardware:
    """Return a device's hardware."""
    return decode_as(Hardware, row.hardware_json)


def status_of(row: Any) -> DeviceStatus | None:
    """Return what a device last said, None before its first poll."""
    return decode_as(DeviceStatus, row.status_json) if row.status_json else None


def committed(status_json: bytes | None) -> str:
    """Return the committed release in a stored status."""
    return committed_release(decode_as(DeviceStatus, status_json)) if status_json else ""


def device(row: Any, *, now: int, offline_ms: int) -> DeviceView:
    """Return a device as a list shows it."""
    status = status_of(row)
    online = row.seen_at is not None and now - row.seen_at <= offline_ms
    return DeviceView(
        id=row.id,
        enrolment=row.state,
        board=row.board,
        simulated=row.simulated,
        labels=msgspec.json.decode(row.labels_json, type=dict[str, str]),
        online=online,
        seen_at=row.seen_at,
        release=committed_release(status),
        serving=serving_release(status),
        state=status.state.value if status else "unknown",
        reason=status.reason.value if status else Reason.NONE.value,
        detail=status.detail if status else "",
        rollout=row.order_rollout,
        gateway=status.gateway if status else "unknown",
        temperature_celsius=status.temperature_celsius if status else None,
        attention=_attention(row, status, online=online, now=now),
    )


def _attention(row: Any, status: DeviceStatus | None, *, online: bool, now: int) -> str:
    if row.state == "pending":
        return "waits for approval"
    if row.key_conflict_at is not None and now - row.key_conflict_at < 24 * RECENT_MS:
        return f"{row.key_conflicts} attempts to enrol under this name with another key"
    if row.state != "approved" or status is None:
        return ""
    if not online:
        return f"not heard of for {spoken((now - row.seen_at) / 1000)}"
    if status.state is UpdateState.FAILED:
        return f"update failed, {words(status.reason, status.detail)}"
    if status.gateway == "down":
        return "its gateway does not answer"
    throttled = [name for name, yes in status.throttled.items() if yes]
    return f"throttled: {', '.join(throttled)}" if throttled else ""


def device_page(
    row: Any, *, why: WhyView, events: Sequence[Any], measured: Sequence[Any], now: int, offline_ms: int
) -> DevicePage:
    """Return a device's page."""
    status = status_of(row)
    order = decode_as(Order, row.order_json) if row.order_json else None
    return DevicePage(
        device=device(row, now=now, offline_ms=offline_ms),
        why=why,
        hardware=msgspec.to_builtins(hardware_of(row)),
        agent_version=row.agent_version,
        boot=row.boot,
        enrolled_at=row.enrolled_at,
        decided_by=row.decided_by,
        public_key=row.public_key,
        key_conflicts=row.key_conflicts,
        clock_off_ms=row.clock_off_ms,
        slots=_slots(status),
        order=None if order is None else _order(order, row, status),
        progress_bytes=status.progress_bytes if status else 0,
        total_bytes=status.total_bytes if status else 0,
        windows_dropped=status.windows_dropped if status else 0,
        throttled=tuple(name for name, yes in status.throttled.items() if yes) if status else (),
        telemetry=_telemetry(
            [w for item in measured for w in decode_as(list[Window], item.windows_json)][-SERIES_MAX:]
        ),
        events=tuple(_event(item) for item in events),
        series=tuple(
            _point(window, received_ms=item.received_at)
            for item in measured
            for window in decode_as(list[Window], item.windows_json)
        )[-SERIES_MAX:],
    )


def _slots(status: DeviceStatus | None) -> tuple[SlotView, ...]:
    if status is None:
        return ()
    return tuple(
        SlotView(
            slot=held.slot.value,
            release=held.release,
            variant=held.variant,
            serving=held.slot is status.serving,
            committed=held.slot is status.committed,
        )
        for held in status.slots
    )


def _order(order: Order, row: Any, status: DeviceStatus | None) -> OrderView:
    return OrderView(
        serial=order.serial,
        mode=order.mode.value,
        release=order.release,
        reason=order.reason,
        rollout=order.rollout,
        signed=row.signed_serial >= order.serial,
        accepted=status is not None and status.order_serial >= order.serial,
    )


def _event(row: Any) -> EventView:
    event = decode_as(DeviceEvent, row.event_json)
    return EventView(
        seq=event.seq,
        at=row.at,
        event=event.event,
        before=event.before.value,
        after=event.after.value,
        reason=event.reason.value,
        detail=event.detail,
        release=event.release,
    )


def _point(window: Window, *, received_ms: int) -> SeriesPoint:
    at, wrong = believed(window.ended_at_ms, received_ms=received_ms)
    merged = merge([part.duration for part in window.requests])
    return SeriesPoint(
        at=at,
        release=window.release,
        requests=sum(part.ok + part.errors for part in window.requests),
        errors=sum(part.errors for part in window.requests),
        latency_p50_s=quantile(merged, 0.5),
        latency_p95_s=quantile(merged, 0.95),
        temperature_celsius=window.temperature_celsius,
        memory_bytes=window.memory_bytes or None,
        clock_wrong=wrong,
    )


def _telemetry(measured: Sequence[Window]) -> tuple[TelemetryView, ...]:
    by_release: dict[str, list[Window]] = {}
    for window in reversed(measured):
        by_release.setdefault(window.release, []).append(window)
    return tuple(_summary(release, windows) for release, windows in by_release.items() if release)


def _summary(release: str, windows: Sequence[Window]) -> TelemetryView:
    parts = [part for window in windows for part in window.requests]
    duration, ttft = merge(part.duration for part in parts), merge(part.ttft for part in parts)
    decoding = math.fsum(part.decode_seconds for part in parts)
    return TelemetryView(
        release=release,
        requests=sum(part.ok + part.errors for part in parts),
        errors=sum(part.errors for part in parts),
        latency_p50_s=quantile(duration, 0.5),
        latency_p95_s=quantile(duration, 0.95),
        latency_p99_s=quantile(duration, 0.99),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p95_s=quantile(ttft, 0.95),
        tokens_per_second=sum(part.completion_tokens for part in parts) / decoding if decoding else None,
        memory_bytes=max((window.memory_bytes for window in windows), default=0),
    )


def why_not(row: Any, part: Any, *, now: int, offline_ms: int) -> WhyView:
    """Return why a device is not updated; `part` is its newest membership in a rollout, or None."""
    of_rollout = ""
    active = False
    if part is not None:
        active = not RolloutState(part.rollout_state).ended
        of_rollout = f"rollout {part.rollout} of {part.release} ({part.rollout_state}): {part.reason}"
    case = Case(
        device=row.id,
        enrolment=row.state,
        status=status_of(row),
        silent_s=None if row.seen_at is None else (now - row.seen_at) / 1000,
        online=row.seen_at is not None and now - row.seen_at <= offline_ms,
        order=decode_as(Order, row.order_json) if row.order_json else None,
        order_signed=row.signed_serial >= row.order_serial,
        rollout=of_rollout,
        waits_in_draw=active and part.exposed_at is None,
        failure=part.failure if part is not None and part.rollout == row.order_rollout else "",
    )
    answer, because = why(case)
    return WhyView(device=row.id, answer=answer, because=because)


def release(row: Any, running: int) -> ReleaseView:
    """Return a release."""
    manifest = decode_as(ReleaseManifest, row.manifest_json)
    return ReleaseView(
        id=row.id,
        family=row.family,
        version=manifest.version,
        summary=manifest.summary,
        manifest_digest=row.manifest_digest,
        added_at=row.added_at,
        added_by=row.added_by,
        condemned=row.condemned_at is not None,
        condemned_at=row.condemned_at,
        condemned_by=row.condemned_by,
        condemned_reason=row.condemned_reason,
        evaluation_passed=manifest.evaluation.passed,
        overridden=manifest.evaluation.overridden,
        findings=manifest.evaluation.findings,
        variants=tuple(
            VariantView(
                name=v.name,
                quantization=v.quantization,
                size_bytes=v.size_bytes,
                digest=v.digest,
                kl_mean=v.quality.kl_mean if v.quality else None,
                top1_agreement=v.quality.top1_agreement if v.quality else None,
            )
            for v in manifest.variants
        ),
        devices=running,
    )


def rollout(loaded: Loaded, latest: VerdictView | None) -> RolloutView:
    """Return a rollout as a list shows it."""
    row, model = loaded.row, loaded.model
    exposed = [member for member in model.members if member.exposed]
    waits = waits_for(model)
    if model.state is RolloutState.JUDGING and latest is not None and latest.wants:
        waits = latest.wants
    manifest = decode_as(ReleaseManifest, loaded.release.manifest_json)
    return RolloutView(
        id=row.id,
        release=row.release,
        selector=row.selector,
        state=row.state,
        ended=model.state.ended,
        reason=row.reason,
        waits_for=waits,
        paused_by=row.paused_by,
        stage=row.stage,
        stages=_stages(loaded, len(exposed)),
        direct=model.direct,
        devices=len(model.members),
        exposed=len(exposed),
        counts={s.value: n for s, n in Counter(m.standing for m in model.members).items()},
        created_at=row.created_at,
        created_by=row.created_by,
        changed_at=row.changed_at,
        ended_at=row.ended_at,
        can=tuple(event.value for event in OPERATOR_EVENTS if allows(model.state, event)),
        verdict=latest,
        overridden=manifest.evaluation.overridden,
    )


def _stages(loaded: Loaded, exposed: int) -> tuple[StageView, ...]:
    texts = msgspec.json.decode(loaded.row.stages_json, type=tuple[str, ...])
    now, caps = loaded.row.stage, loaded.model.caps
    past = loaded.model.state in (RolloutState.COMMITTING, RolloutState.COMPLETED)
    views = []
    for number, cap in enumerate(caps):
        state: Literal["done", "now", "next"] = "next"
        if number < now or past:
            state = "done"
        elif number == now:
            state = "now"
        text = texts[number] if len(texts) == len(caps) else str(cap)
        views.append(StageView(number=number, text=text, cap=cap, exposed=min(exposed, cap), state=state))
    return tuple(views)


def members(loaded: Loaded, counted: dict[str, int], *, now: int, offline_ms: int) -> tuple[MemberView, ...]:
    """Return a rollout's devices in the order of the draw."""
    views = []
    for member in loaded.model.members:
        known = loaded.known[member.device]
        views.append(
            MemberView(
                device=member.device,
                rank=member.rank,
                stage=known.stage,
                stratum=known.stratum,
                standing=member.standing.value,
                exposed=member.exposed,
                previous=known.previous,
                failure=member.failure if member.standing is Standing.FAILED else "",
                online=known.seen_at is not None and now - known.seen_at <= offline_ms,
                seen_at=known.seen_at,
                pairs=counted.get(member.device, 0),
                simulated=known.simulated,
            )
        )
    return tuple(views)


def policy(given: RolloutPolicy) -> dict[str, Any]:
    """Return a policy whole, with the gate's defaults filled in."""
    shown: dict[str, Any] = msgspec.to_builtins(given)
    if not given.direct:
        shown["gate"] = {k: v for k, v in given.gate_policy().document().items() if k != "design"}
    return shown


def verdict(row: Any) -> VerdictView:
    """Return a stored verdict."""
    said: dict[str, Any] = msgspec.json.decode(row.verdict_json)
    said["findings"] = [_finding(item) for item in said["findings"]]
    return msgspec.convert({**said, "at": row.at, "stage": row.stage}, VerdictView)


def _finding(item: dict[str, Any]) -> dict[str, Any]:
    whole = {**item, "threshold": math.inf if item["threshold"] is None else item["threshold"]}
    return {**item, "says": msgspec.convert(whole, Finding, strict=False).says}


def audit_row(row: Any) -> AuditView:
    """Return one row of the audit log."""
    return AuditView(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        reason=row.reason,
        detail=msgspec.json.decode(row.detail_json),
    )


def rollout_attention(views: Iterable[RolloutView], *, now: int) -> tuple[Attention, ...]:
    """Return what rollouts ask of a person."""
    found: list[Attention] = []
    for view in views:
        link, name = f"rollout/{view.id}", f"rollout {view.id} of {view.release}"
        recent = view.ended_at is not None and now - view.ended_at < RECENT_MS
        if view.state in ("rolling_back", "halting"):
            found.append(Attention(level="bad", text=f"{name} is being taken back: {view.reason}", link=link))
        elif view.state in ("rolled_back", "halted") and recent:
            found.append(Attention(level="bad", text=f"{name} was taken back: {view.reason}", link=link))
        elif view.state == "paused":
            found.append(Attention(level="warn", text=f"{name} is paused: {view.reason}", link=link))
        elif view.verdict is not None and view.verdict.expired and not view.ended:
            found.append(Attention(level="warn", text=f"{name} waits for a person: {view.verdict.reason}", link=link))
        if view.overridden and not view.ended:
            text = f"{name} goes out against its evaluation: {view.overridden}"
            found.append(Attention(level="bad", text=text, link=link))
    return tuple(found)
