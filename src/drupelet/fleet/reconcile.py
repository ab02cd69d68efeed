"""The loop that makes decisions true: load what is known, ask `plan.decide`, apply, until there is nothing to do.

A decision is applied in one transaction: the new state, the orders, the condemned release and the audit row appear
together or not at all. Whoever dies in between finds the last whole step and goes on from there. Two servers on one
database do not step on each other: a rollout's row carries a revision, and whoever comes second looks again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from drupelet.core.errors import DrupeletError, Unavailable
from drupelet.core.states import Mode, RolloutState
from drupelet.fleet.changes import Changes
from drupelet.fleet.director import Desk
from drupelet.fleet.evidence import close_pairs, keep_verdict, look
from drupelet.fleet.loading import Loaded, load
from drupelet.fleet.machine import AT_RISK, Effect, Event, step
from drupelet.fleet.orders import Draft, condemned, give
from drupelet.fleet.plan import Decision, PausedBy, decide
from drupelet.fleet.releases import condemn, release_row
from drupelet.fleet.rollouts import ENDED
from drupelet.fleet.standing import committed_release, holding
from drupelet.fleet.store.audit import clean, record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import commands, device_events, members, rollouts, windows
from drupelet.wire.codec import decode_as
from drupelet.wire.manifest import ReleaseManifest

STEPS_MAX = 50
"""Decisions in one look at one rollout; more means that two rules undo each other."""
RETENTION_MS = 7 * 86_400_000
"""How long telemetry and device events are kept."""
PRUNE_EVERY_MS = 3_600_000

log = logging.getLogger(__name__)


class Reconciler:
    """Looks at every rollout that has not ended, and signs what is due."""

    def __init__(
        self,
        store: Store,
        *,
        desk: Desk,
        changes: Changes,
        clock: Callable[[], int],
        retention_ms: int = RETENTION_MS,
    ) -> None:
        self._store = store
        self._desk = desk
        self._changes = changes
        self._clock = clock
        self._retention_ms = retention_ms
        self._pruned_at = 0
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._looking = threading.Lock()

    def start(self, *, every_s: float) -> None:
        """Look now and every `every_s` seconds, in a thread of its own, and at once when woken."""
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="reconcile", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    def _run(self, every_s: float) -> None:
        while not self._ending.is_set():
            try:
                self.look()
            except Unavailable as error:
                log.warning("%s", error.line())
            except Exception:
                # The loop is what takes bad releases back: one unforeseen error must not end it. It looks again soon.
                log.exception("a look at the rollouts failed")
            self._wake.wait(every_s)
            self._wake.clear()

    def look(self) -> int:
        """Do everything there is to do now and return how many decisions were applied."""
        with self._looking:
            applied = 0
            for number in self._active():
                try:
                    applied += self._advance(number)
                except DrupeletError as error:
                    log.error("rollout %d: %s", number, error.line())
            self._desk.sign_due()
            self._prune()
            return applied

    def _active(self) -> list[int]:
        asked = select(commands.c.rollout).where(commands.c.done_at.is_(None))
        with self._store.read() as connection:
            rows = connection.execute(
                select(rollouts.c.id)
                .where(rollouts.c.state.not_in(ENDED) | rollouts.c.id.in_(asked))
                .order_by(rollouts.c.id)
            )
            return [int(number) for number in rows.scalars()]

    def _advance(self, number: int) -> int:
        for count in range(STEPS_MAX):
            if not self.step(number):
                return count
        raise Unavailable(f"rollout {number} took {STEPS_MAX} steps at once and would take more")

    def step(self, number: int) -> bool:
        """Take one decision about a rollout and make it true; return whether there was one."""
        with self._store.write() as connection:
            now = self._clock()
            loaded = load(connection, number, now=now)
            if loaded is None:
                return False
            at_risk = loaded.model.state in AT_RISK and any(known.exposed for known in loaded.known.values())
            if at_risk and not loaded.policy.direct:
                close_pairs(connection, loaded, now=now)
                verdict = look(connection, loaded, now=now)
                keep_verdict(connection, loaded, verdict, now=now)
                loaded = loaded.with_verdict(verdict)
            decision = decide(loaded.model)
            if decision is not None:
                apply(connection, loaded, decision, now=now)
        if decision is not None:
            self._changes.publish("rollout", str(number))
            self._changes.publish("device", *(device for device, _ in decision.orders))
            self._changes.publish("audit")
        return decision is not None

    def _prune(self) -> None:
        now = self._clock()
        if now - self._pruned_at < PRUNE_EVERY_MS:
            return
        self._pruned_at = now
        with self._store.write() as connection:
            for table in (windows, device_events):
                connection.execute(delete(table).where(table.c.received_at < now - self._retention_ms))


def apply(connection: Connection, loaded: Loaded, decision: Decision, *, now: int) -> None:
    """Make a decision true in the caller's transaction."""
    row, subject = loaded.row, f"rollout {loaded.row.id}"
    if decision.command is not None:
        connection.execute(update(commands).where(commands.c.id == decision.command).values(done_at=now))
    if decision.event is not None:
        _change_state(connection, loaded, decision, now=now)
    elif decision.orders:
        record(
            connection, at=now, actor=decision.actor, action="rollout.ordered", subject=subject,
            reason=decision.reason, devices=[device for device, _ in decision.orders],
        )  # fmt: skip
    else:
        record(
            connection, at=now, actor=decision.actor, action="rollout.unobeyed", subject=subject,
            reason=decision.reason,
        )  # fmt: skip
    if decision.orders:
        listed = condemned(connection)
        manifest = decode_as(ReleaseManifest, loaded.release.manifest_json)
        for device, mode in decision.orders:
            if mode is Mode.REVERT:
                draft = _way_back(connection, loaded, device, reason=decision.reason)
            else:
                draft = _way_forward(loaded, manifest, mode, reason=decision.reason)
            serial = give(connection, device, draft, listed=listed)
            if mode is not Mode.REVERT:
                _expose(connection, loaded, device, serial=serial, now=now)
    _bump(connection, row)


def _change_state(connection: Connection, loaded: Loaded, decision: Decision, *, now: int) -> None:
    row = loaded.row
    before = RolloutState(row.state)
    if decision.event is None:
        return
    transition = step(before, decision.event, where=f"rollout {row.id}")
    values: dict[str, Any] = {
        "state": transition.after.value,
        "changed_at": now,
        "paused_by": decision.paused_by.value if transition.after is RolloutState.PAUSED else PausedBy.NOBODY.value,
        "ended_at": now if transition.after.ended else None,
    }
    if decision.event is not Event.TAKEN_BACK:  # at the end, why it was taken back is what people ask
        values |= {"reason": clean(decision.reason)}
    if before is RolloutState.PENDING:
        values |= {"stage_at": now}
    if Effect.ADVANCE in transition.effects:
        values |= {"stage": row.stage + 1, "stage_at": now}
    connection.execute(update(rollouts).where(rollouts.c.id == row.id).values(**values))
    record(
        connection, at=now, actor=decision.actor, action=f"rollout.{transition.after.value}",
        subject=f"rollout {row.id}", reason=decision.reason, event=decision.event.value, before=before.value,
    )  # fmt: skip
    if Effect.CONDEMN in transition.effects:
        condemn(connection, row.release, by=decision.actor, reason=decision.reason, now=now)


def _way_forward(loaded: Loaded, manifest: ReleaseManifest, mode: Mode, *, reason: str) -> Draft:
    policy = loaded.policy
    return Draft(
        mode=mode,
        release=loaded.row.release,
        manifest=loaded.release.manifest_digest,
        variants=policy.variants or tuple(variant.name for variant in manifest.variants),
        rollout=loaded.row.id,
        reason=reason,
        crossover=policy.crossover if mode is Mode.CANARY else None,
        probation_ms=policy.probation_ms,
        verdict_ms_max=policy.verdict_ms_max,
    )


def _way_back(connection: Connection, loaded: Loaded, device: str, *, reason: str) -> Draft:
    """Return the order back to what the device had: from its other slot, or by download if no slot holds it now."""
    known = loaded.known[device]
    previous: Any = release_row(connection, known.previous)
    manifest = decode_as(ReleaseManifest, previous.manifest_json)
    held = {slot.release for slot in known.status.slots} if known.status else set()
    return Draft(
        mode=Mode.REVERT if not known.status or known.previous in held else Mode.INSTALL,
        release=known.previous,
        manifest=previous.manifest_digest,
        variants=tuple(variant.name for variant in manifest.variants),
        rollout=loaded.row.id,
        reason=f"{loaded.row.release} is taken back: {reason}",
        probation_ms=loaded.policy.probation_ms,
    )


def _expose(connection: Connection, loaded: Loaded, device: str, *, serial: int, now: int) -> None:
    known = loaded.known[device]
    if known.exposed:
        return
    status = known.status
    held = holding(status, status.committed) if status else None
    connection.execute(
        update(members)
        .where(members.c.rollout == loaded.row.id, members.c.device == device)
        .values(
            exposed_at=now,
            first_serial=serial,
            stage=loaded.row.stage,
            previous=committed_release(status),
            previous_manifest=held.manifest if held else "",
        )
    )


def _bump(connection: Connection, row: Row[Any]) -> None:
    """Count the change, or raise when another server was faster: its change stands and this one is undone."""
    changed = connection.execute(
        update(rollouts)
        .where(rollouts.c.id == row.id, rollouts.c.revision == row.revision)
        .values(revision=row.revision + 1)
    )
    if changed.rowcount != 1:
        raise Unavailable(f"rollout {row.id} was changed by another server meanwhile", fix="looking again")
