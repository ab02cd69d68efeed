"""What people and pages are shown: frozen shapes, ready to be said as JSON. Times are Unix ms by the server's clock.

`Overview`, `DevicePage` and `RolloutPage` are whole pages; the REST API answers with the same shapes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A shape that is shown."""


class SlotView(View, frozen=True, kw_only=True):
    """What a slot holds."""

    slot: str
    release: str
    variant: str
    serving: bool
    committed: bool


class DeviceView(View, frozen=True, kw_only=True):
    """A device in a list. `enrolment`: pending, approved, rejected. `online` by how lately it was seen."""

    id: str
    enrolment: str
    board: str
    simulated: bool
    labels: dict[str, str]
    online: bool
    seen_at: int | None
    release: str
    """The committed release, empty if none or unknown."""
    serving: str
    """The release that answers now."""
    state: str
    """The update machine's state; `unknown` before the first poll."""
    reason: str
    detail: str
    rollout: int
    """The rollout behind its standing order, 0 if none."""
    gateway: str
    temperature_celsius: float | None
    attention: str
    """Why a person should look at it; empty if nobody need."""


class OrderView(View, frozen=True, kw_only=True):
    """A standing order."""

    serial: int
    mode: str
    release: str
    reason: str
    rollout: int
    signed: bool
    accepted: bool


class EventView(View, frozen=True, kw_only=True):
    """One transition or refusal of a device's update machine."""

    seq: int
    at: int
    event: str
    before: str
    after: str
    reason: str
    detail: str
    release: str


class WhyView(View, frozen=True, kw_only=True):
    """Why a device is not updated: the answer in a sentence, then what it rests on, the most telling first."""

    device: str
    answer: str
    because: tuple[str, ...]


class SeriesPoint(View, frozen=True, kw_only=True):
    """One telemetry window of a device. Times are seconds; None where nothing was measured."""

    at: int
    release: str
    requests: int
    errors: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    temperature_celsius: float | None
    memory_bytes: int | None
    clock_wrong: bool


class TelemetryView(View, frozen=True, kw_only=True):
    """What a device measured of one release lately, over merged sketches. Times are seconds; None: nothing measured."""

    release: str
    requests: int
    errors: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tokens_per_second: float | None
    memory_bytes: int


class DevicePage(View, frozen=True, kw_only=True):
    """All about one device."""

    device: DeviceView
    why: WhyView
    hardware: dict[str, Any]
    agent_version: str
    boot: str
    enrolled_at: int
    decided_by: str
    public_key: str
    key_conflicts: int
    clock_off_ms: int
    """How far the device's clock is ahead of the server's."""
    slots: tuple[SlotView, ...]
    order: OrderView | None
    progress_bytes: int
    total_bytes: int
    windows_dropped: int
    throttled: tuple[str, ...]
    """What holds it back now, such as undervoltage."""
    telemetry: tuple[TelemetryView, ...]
    """By release, over the windows of `series`; the one measured last first."""
    events: tuple[EventView, ...]
    """Newest first."""
    series: tuple[SeriesPoint, ...]
    """Oldest first."""


class VariantView(View, frozen=True, kw_only=True):
    """One variant of a release."""

    name: str
    quantization: str
    size_bytes: int
    digest: str
    kl_mean: float | None
    top1_agreement: float | None


class ReleaseView(View, frozen=True, kw_only=True):
    """A registered release. `overridden`: the words of whoever packed it against its evaluation; show them in red."""

    id: str
    family: str
    version: str
    summary: str
    manifest_digest: str
    added_at: int
    added_by: str
    condemned: bool
    condemned_at: int | None
    condemned_by: str
    condemned_reason: str
    evaluation_passed: bool
    overridden: str
    findings: tuple[str, ...]
    variants: tuple[VariantView, ...]
    devices: int
    """Devices that have it committed."""


class MemberView(View, frozen=True, kw_only=True):
    """A device in a rollout. `standing` is a word of `plan.Standing`."""

    device: str
    rank: int
    stage: int | None
    """The stage it was exposed in, from 0; None: not exposed."""
    stratum: str
    standing: str
    exposed: bool
    previous: str
    failure: str
    online: bool
    seen_at: int | None
    pairs: int
    simulated: bool = False


class FindingView(View, frozen=True, kw_only=True):
    """A metric's numbers in a verdict; see docs/gate.md. `says` is the finding in words."""

    metric: str
    mandatory: bool
    effect: float | None
    low: float | None
    high: float | None
    old_rate: float | None
    evidence: float
    peak: float
    threshold: float | None
    """None: it never rolls back."""
    noninferior: float | None
    needed: float
    margin: float | None
    devices: int
    pairs: int
    requests: int
    says: str


class VerdictView(View, frozen=True, kw_only=True):
    """What the gate says. `kind`: pass, hold, pause, rollback. `wants`: what would change a hold or pause."""

    at: int
    stage: int
    kind: str
    reason: str
    wants: str
    expired: bool
    devices: int
    pairs: int
    unusable: int
    requests: int
    findings: tuple[FindingView, ...]


class EvidencePoint(View, frozen=True, kw_only=True):
    """A metric's evidence after one more pair: of harm, and of staying within the margin."""

    at: int
    metric: str
    harm: float
    noninferior: float | None


class StageView(View, frozen=True, kw_only=True):
    """An exposure cap. `state`: done, now, next."""

    number: int
    text: str
    cap: int
    exposed: int
    state: Literal["done", "now", "next"]


class RolloutView(View, frozen=True, kw_only=True):
    """A rollout in a list. `counts` has the number of devices by standing; `can` what an operator may say now."""

    id: int
    release: str
    selector: str
    state: str
    ended: bool
    reason: str
    waits_for: str
    paused_by: str
    stage: int
    stages: tuple[StageView, ...]
    direct: bool
    devices: int
    exposed: int
    counts: dict[str, int]
    created_at: int
    created_by: str
    changed_at: int
    ended_at: int | None
    can: tuple[str, ...]
    verdict: VerdictView | None
    overridden: str
    """The override of the release's evaluation, empty if it passed."""


class AuditView(View, frozen=True, kw_only=True):
    """One row of the audit log."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    reason: str
    detail: dict[str, Any]


class RolloutPage(View, frozen=True, kw_only=True):
    """All about one rollout."""

    rollout: RolloutView
    seed: str
    policy: dict[str, Any]
    members: tuple[MemberView, ...]
    verdicts: tuple[VerdictView, ...]
    """Oldest first: every change of kind, and a sample in between."""
    evidence: tuple[EvidencePoint, ...]
    """Oldest first, all metrics."""
    thresholds: dict[str, float | None]
    """By metric: evidence of harm that rolls back."""
    pass_evidence: float
    history: tuple[AuditView, ...]
    """Newest first."""


class Attention(View, frozen=True, kw_only=True):
    """Something a person should look at. `link` is `device/<id>`, `rollout/<n>` or `release/<id>`."""

    level: Literal["bad", "warn", "info"]
    text: str
    link: str


class Overview(View, frozen=True, kw_only=True):
    """The first page: what needs attention first, then counts, rollouts and devices."""

    at: int
    attention: tuple[Attention, ...]
    devices_total: int
    devices_online: int
    devices_pending: int
    by_release: dict[str, int]
    """Devices by committed release; the empty name: none or unknown."""
    by_state: dict[str, int]
    by_board: dict[str, int]
    simulated: int
    """How many of the approved devices are simulated."""
    rollouts: tuple[RolloutView, ...]
    """Active ones first, then the newest ended ones."""
    devices: tuple[DeviceView, ...]
    releases: tuple[ReleaseView, ...]
    audit: tuple[AuditView, ...]


class TokenView(View, frozen=True, kw_only=True):
    """An API token without its secret."""

    name: str
    scopes: tuple[str, ...]
    created_at: int
    created_by: str
    expires_at: int
    revoked: bool


class Page(View, frozen=True, kw_only=True):
    """A part of a long list; ask again with `after` = `next` for more. `next` is empty at the end."""

    items: tuple[Any, ...]
    next: str = ""
