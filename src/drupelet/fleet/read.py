"""The read model: everything that pages and the API show, from the store, in `views` shapes. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from drupelet.fleet import showing
from drupelet.fleet.errors import NoSuch
from drupelet.fleet.evidence import stored_pairs
from drupelet.fleet.loading import Loaded, load
from drupelet.fleet.policy import RolloutPolicy
from drupelet.fleet.releases import release_row
from drupelet.fleet.rollouts import ENDED, rollout_row
from drupelet.fleet.selector import Selector, facts
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import (
    audit,
    device_events,
    devices,
    members,
    pairs,
    releases,
    rollouts,
    tokens,
    verdicts,
    windows,
)
from drupelet.fleet.views import (
    Attention,
    AuditView,
    DevicePage,
    DeviceView,
    EvidencePoint,
    Overview,
    Page,
    ReleaseView,
    RolloutPage,
    RolloutView,
    TokenView,
    VerdictView,
    WhyView,
)
from drupelet.gate import history
from drupelet.wire.codec import decode_as
from drupelet.wire.manifest import ReleaseManifest

OFFLINE_MS = 120_000
"""A device not heard of for this long counts as offline; four polls at the usual pace."""
PAGE_MAX = 1_000
EVENTS_SHOWN = 100
WINDOWS_SHOWN = 200
VERDICTS_SHOWN = 200
OVERVIEW_DEVICES = 200
OVERVIEW_ROLLOUTS = 10


class Reader:
    """Answers what is asked; each answer is one snapshot."""

    def __init__(self, store: Store, *, clock: Callable[[], int], offline_ms: int = OFFLINE_MS) -> None:
        self._store = store
        self._clock = clock
        self._offline_ms = offline_ms

    def overview(self) -> Overview:
        """Return the first page."""
        with self._store.read() as connection:
            now = self._clock()
            views = self._devices(connection, now=now)
            recent = connection.execute(
                select(rollouts.c.id)
                .order_by(rollouts.c.state.in_(ENDED), rollouts.c.id.desc())
                .limit(OVERVIEW_ROLLOUTS)
            ).scalars()
            shown = tuple(self._rollout_view(connection, int(number), now=now) for number in recent)
            known = self._releases(connection)
            log = self._audit(connection, limit=20)
        approved = [view for view in views if view.enrolment == "approved"]
        attention = (*showing.rollout_attention(shown, now=now), *_device_attention(views))
        order = {"bad": 0, "warn": 1, "info": 2}
        return Overview(
            at=now,
            attention=tuple(sorted(attention, key=lambda a: order[a.level])),
            devices_total=len(approved),
            devices_online=sum(view.online for view in approved),
            devices_pending=sum(view.enrolment == "pending" for view in views),
            by_release=dict(Counter(view.release for view in approved)),
            by_state=dict(Counter(view.state for view in approved)),
            by_board=dict(Counter(view.board for view in approved)),
            simulated=sum(view.simulated for view in approved),
            rollouts=shown,
            devices=tuple(sorted(views, key=lambda v: (not v.attention, v.id))[:OVERVIEW_DEVICES]),
            releases=known,
            audit=log,
        )

    def devices(self, *, selector: str = "", after: str = "", limit: int = PAGE_MAX) -> Page:
        """Return devices by name, those that the selector matches."""
        limit = max(1, min(limit, PAGE_MAX))
        wanted = Selector.parse(selector)
        with self._store.read() as connection:
            views = self._devices(connection, now=self._clock(), selector=wanted, after=after)
        return Page(items=tuple(views[:limit]), next=views[limit - 1].id if len(views) > limit else "")

    def _devices(
        self, connection: Connection, *, now: int, selector: Selector | None = None, after: str = ""
    ) -> list[DeviceView]:
        rows = connection.execute(
            select(devices).where(devices.c.state != "removed", devices.c.id > after).order_by(devices.c.id)
        ).all()
        found = []
        for row in rows:
            view = showing.device(row, now=now, offline_ms=self._offline_ms)
            architecture = showing.hardware_of(row).architecture
            seen = facts(view.id, view.board, architecture, view.simulated, view.labels)
            if selector is None or selector.matches(seen):
                found.append(view)
        return found

    def device(self, device: str) -> DevicePage:
        """Return all about one device."""
        with self._store.read() as connection:
            now = self._clock()
            row = self._device_row(connection, device)
            events = connection.execute(
                select(device_events)
                .where(device_events.c.device == device)
                .order_by(device_events.c.seq.desc())
                .limit(EVENTS_SHOWN)
            ).all()
            measured = connection.execute(
                select(windows.c.received_at, windows.c.windows_json)
                .where(windows.c.device == device)
                .order_by(windows.c.last_seq.desc())
                .limit(WINDOWS_SHOWN)
            ).all()
            why = self._why(connection, row, now=now)
        return showing.device_page(
            row, why=why, events=events, measured=list(reversed(measured)), now=now, offline_ms=self._offline_ms
        )

    def why(self, device: str) -> WhyView:
        """Return why a device is not updated."""
        with self._store.read() as connection:
            return self._why(connection, self._device_row(connection, device), now=self._clock())

    def _why(self, connection: Connection, row: Any, *, now: int) -> WhyView:
        part = connection.execute(
            select(members, rollouts.c.state.label("rollout_state"), rollouts.c.reason, rollouts.c.release)
            .join(rollouts, rollouts.c.id == members.c.rollout)
            .where(members.c.device == row.id)
            .order_by(rollouts.c.state.in_(ENDED), rollouts.c.id.desc())
            .limit(1)
        ).one_or_none()
        return showing.why_not(row, part, now=now, offline_ms=self._offline_ms)

    def _device_row(self, connection: Connection, device: str) -> Any:
        row = connection.execute(
            select(devices).where(devices.c.id == device, devices.c.state != "removed")
        ).one_or_none()
        if row is None:
            raise NoSuch(f"there is no device {device[:80]!r}", fix="see: drupelet device list")
        return row

    def releases(self) -> tuple[ReleaseView, ...]:
        """Return every release, the newest first."""
        with self._store.read() as connection:
            return self._releases(connection)

    def release(self, release: str) -> ReleaseView:
        """Return one release or raise `NoSuch`."""
        with self._store.read() as connection:
            row = release_row(connection, release)
            return showing.release(row, self._running(connection).get(release, 0))

    def manifest(self, release: str) -> ReleaseManifest:
        """Return a registered release's manifest."""
        with self._store.read() as connection:
            row: Any = release_row(connection, release)
            return decode_as(ReleaseManifest, row.manifest_json)

    def _releases(self, connection: Connection) -> tuple[ReleaseView, ...]:
        running = self._running(connection)
        rows = connection.execute(select(releases).order_by(releases.c.added_at.desc(), releases.c.id.desc())).all()
        return tuple(showing.release(row, running.get(row.id, 0)) for row in rows)

    def _running(self, connection: Connection) -> dict[str, int]:
        rows = connection.execute(select(devices.c.status_json).where(devices.c.state == "approved")).scalars()
        return dict(Counter(showing.committed(data) for data in rows))

    def rollouts(self, *, before: int | None = None, limit: int = 50) -> Page:
        """Return rollouts, the newest first."""
        limit = max(1, min(limit, PAGE_MAX))
        query = select(rollouts.c.id).order_by(rollouts.c.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(rollouts.c.id < before)
        with self._store.read() as connection:
            numbers = [int(number) for number in connection.execute(query).scalars()]
            now = self._clock()
            shown = tuple(self._rollout_view(connection, number, now=now) for number in numbers[:limit])
        return Page(items=shown, next=str(numbers[limit - 1]) if len(numbers) > limit else "")

    def rollout(self, number: int) -> RolloutPage:
        """Return all about one rollout."""
        with self._store.read() as connection:
            now = self._clock()
            loaded = self._loaded(connection, number, now=now)
            by_device = select(pairs.c.device, func.count()).where(pairs.c.rollout == number).group_by(pairs.c.device)
            counted = {row[0]: int(row[1]) for row in connection.execute(by_device).all()}
            said = connection.execute(
                select(verdicts)
                .where(verdicts.c.rollout == number)
                .order_by(verdicts.c.id.desc())
                .limit(VERDICTS_SHOWN)
            ).all()
            points = self._evidence(connection, number, loaded.policy)
            log = self._audit(connection, subject=f"rollout {number}", limit=200)
            view = self._rollout_view(connection, number, now=now)
        policy = loaded.policy.gate_policy()
        return RolloutPage(
            rollout=view,
            seed=loaded.row.seed,
            policy=showing.policy(loaded.policy),
            members=showing.members(loaded, counted, now=now, offline_ms=self._offline_ms),
            verdicts=tuple(showing.verdict(row) for row in reversed(said)),
            evidence=points,
            thresholds={r.metric.value: 1.0 / r.alpha if r.alpha else None for r in policy.metrics},
            pass_evidence=policy.pass_evidence,
            history=log,
        )

    def _evidence(self, connection: Connection, number: int, policy: RolloutPolicy) -> tuple[EvidencePoint, ...]:
        if policy.direct:
            return ()
        moments = history(policy.gate_policy(), stored_pairs(connection, number))
        return tuple(
            EvidencePoint(at=int(m.at_s * 1000), metric=m.metric.value, harm=m.harm, noninferior=m.noninferior)
            for m in moments
        )

    def _loaded(self, connection: Connection, number: int, *, now: int) -> Loaded:
        rollout_row(connection, number)
        loaded = load(connection, number, now=now)
        if loaded is None:
            raise NoSuch(f"there is no rollout {number}")
        return loaded

    def _rollout_view(self, connection: Connection, number: int, *, now: int) -> RolloutView:
        loaded = self._loaded(connection, number, now=now)
        last = connection.execute(
            select(verdicts).where(verdicts.c.rollout == number).order_by(verdicts.c.id.desc()).limit(1)
        ).one_or_none()
        latest: VerdictView | None = showing.verdict(last) if last is not None else None
        return showing.rollout(loaded, latest)

    def audit(self, *, subject: str = "", before: int | None = None, limit: int = 100) -> Page:
        """Return the audit log, the newest first."""
        limit = max(1, min(limit, PAGE_MAX))
        with self._store.read() as connection:
            rows = self._audit(connection, subject=subject, before=before, limit=limit + 1)
        return Page(items=rows[:limit], next=str(rows[limit - 1].id) if len(rows) > limit else "")

    def _audit(
        self, connection: Connection, *, subject: str = "", before: int | None = None, limit: int
    ) -> tuple[AuditView, ...]:
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if subject:
            query = query.where(audit.c.subject == subject)
        if before is not None:
            query = query.where(audit.c.id < before)
        return tuple(showing.audit_row(row) for row in connection.execute(query).all())

    def tokens(self) -> tuple[TokenView, ...]:
        """Return every API token, without secrets."""
        with self._store.read() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.name)).all()
        return tuple(
            TokenView(
                name=row.name,
                scopes=tuple(row.scopes.split()),
                created_at=row.created_at,
                created_by=row.created_by,
                expires_at=row.expires_at,
                revoked=row.revoked_at is not None,
            )
            for row in rows
        )


def _device_attention(views: list[DeviceView]) -> tuple[Attention, ...]:
    found = []
    pending = [view.id for view in views if view.enrolment == "pending"]
    if pending:
        text = f"{len(pending)} waiting for approval: {', '.join(pending[:3])}"
        found.append(Attention(level="warn", text=text, link=f"device/{pending[0]}"))
    for view in views:
        if view.attention and view.enrolment == "approved":
            level: Literal["bad", "warn"] = "bad" if view.online and view.state == "failed" else "warn"
            found.append(Attention(level=level, text=f"{view.id}: {view.attention}", link=f"device/{view.id}"))
    return tuple(found)
