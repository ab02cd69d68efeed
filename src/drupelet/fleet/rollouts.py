"""Starting rollouts and asking things of them. What then happens is decided in `plan` and done in `reconcile`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select

from drupelet.core.names import ReleaseId
from drupelet.core.states import RolloutState
from drupelet.fleet.changes import Changes
from drupelet.fleet.cohort import Candidate, caps, draw, stages, stratum
from drupelet.fleet.errors import NoSuch, NothingToDo, NoVariant, WrongState
from drupelet.fleet.machine import OPERATOR_EVENTS, TAKING_BACK, Event, step
from drupelet.fleet.plan import names
from drupelet.fleet.policy import RolloutPolicy
from drupelet.fleet.releases import condemn, release_row
from drupelet.fleet.selector import Selector, facts
from drupelet.fleet.standing import committed_release
from drupelet.fleet.store.audit import clean, record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import commands, devices, members, rollouts
from drupelet.wire.codec import decode_as
from drupelet.wire.device_api import DeviceStatus, Hardware
from drupelet.wire.fitness import unfit
from drupelet.wire.manifest import ReleaseManifest, Variant
from drupelet.wire.runtime import OURS, served

SITE_LABEL = "site"
"""The label that, with the board, makes a stratum."""
DEFAULT_STAGES = ("1", "25%", "100%")
ENDED = tuple(state.value for state in RolloutState if state.ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A rollout as an operator asks for it."""

    release: ReleaseId
    selector: str
    policy: RolloutPolicy
    stages: tuple[str, ...] = ()
    """Empty: those the release's author recommends, else 1, 25%, 100%."""
    seed: str = ""
    """Empty: drawn now."""


class Rollouts:
    """The operators' desk for rollouts."""

    def __init__(self, store: Store, *, changes: Changes, clock: Callable[[], int]) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    def start(self, wanted: Wanted, *, by: str) -> int:
        """Check, draw the cohorts, store, and return the rollout's number."""
        selector = Selector.parse(wanted.selector)
        with self._store.write() as connection:
            now = self._clock()
            release = wanted.release.path
            row: Any = release_row(connection, release)
            if row.condemned_at is not None:
                raise WrongState(
                    f"{wanted.release} is condemned: {row.condemned_reason}",
                    where=release, fix="publish a new version; a condemned one is never rolled out",
                )  # fmt: skip
            manifest = decode_as(ReleaseManifest, row.manifest_json)
            allowed = [manifest.variant(name) for name in wanted.policy.variants] or manifest.variants
            chosen = select_devices(connection, selector, release=release)
            _refuse_unfit(connection, [c.device for c in chosen], manifest, allowed)
            _refuse_overlap(connection, [c.device for c in chosen])
            texts = wanted.stages or tuple(s.devices for s in manifest.stages) or DEFAULT_STAGES
            seed = wanted.seed or secrets.token_hex(8)
            order = draw(chosen, seed=seed)
            number = self._store_rollout(connection, wanted, texts=texts, order=order, seed=seed, by=by, now=now)
        self._tell(number)
        return number

    def _store_rollout(
        self, connection: Connection, wanted: Wanted, *, texts: Sequence[str], order: Sequence[Candidate], seed: str,
        by: str, now: int,
    ) -> int:  # fmt: skip
        limits = caps(stages(texts), len(order))
        made = connection.execute(
            insert(rollouts).values(
                release=wanted.release.path,
                selector=wanted.selector,
                stages_json=msgspec.json.encode(texts),
                caps_json=msgspec.json.encode(limits),
                policy_json=msgspec.json.encode(wanted.policy),
                seed=clean(seed, 64),
                state=RolloutState.PENDING.value,
                reason="started",
                created_at=now,
                created_by=by,
                stage_at=now,
                changed_at=now,
            )
        )
        key = made.inserted_primary_key
        number = int(key[0]) if key else 0
        connection.execute(
            insert(members),
            [
                {"rollout": number, "device": c.device, "rank": rank, "stratum": c.stratum[:200]}
                for rank, c in enumerate(order)
            ],
        )
        record(
            connection, at=now, actor=by, action="rollout.started", subject=f"rollout {number}",
            reason=f"{wanted.release} to {wanted.selector or 'every device'}, {len(order)} devices",
            release=wanted.release.path, stages=list(texts), caps=list(limits), seed=seed, design=wanted.policy.design,
            draw=[c.device for c in order[:1000]],
        )  # fmt: skip
        return number

    def command(self, number: int, event: Event, *, by: str, reason: str = "") -> None:
        """Ask something of a rollout: it is obeyed at the next look. Raises `WrongState` if it is impossible now."""
        if event not in OPERATOR_EVENTS:
            raise WrongState(f"{event.value} is not an operator's to say")
        with self._store.write() as connection:
            row = rollout_row(connection, number)
            step(RolloutState(row.state), event, where=f"rollout {number}")
            if row.state == RolloutState.COMPLETED.value:
                drawn = connection.execute(select(members.c.device).where(members.c.rollout == number)).scalars()
                _refuse_overlap(connection, list(drawn))
            self._ask(connection, number, event, by=by, reason=reason)
        self._tell(number)

    def condemn(self, release: ReleaseId, *, by: str, reason: str) -> tuple[int, ...]:
        """Condemn a release and roll back every rollout that brought it; return their numbers."""
        with self._store.write() as connection:
            now = self._clock()
            condemn(connection, release.path, by=by, reason=reason, now=now)
            rows = connection.execute(select(rollouts).where(rollouts.c.release == release.path)).all()
            back = [row.id for row in rows if _may_go_back(RolloutState(row.state))]
            for number in back:
                self._ask(connection, number, Event.ROLLBACK, by=by, reason=f"{release} condemned: {reason}")
        self._changes.publish("release", release.path)
        for number in back:
            self._tell(number)
        return tuple(back)

    def _ask(self, connection: Connection, number: int, event: Event, *, by: str, reason: str) -> None:
        now = self._clock()
        connection.execute(
            insert(commands).values(
                rollout=number, event=event.value, by=clean(by, 64), reason=clean(reason), asked_at=now
            )
        )
        record(
            connection, at=now, actor=by, action=f"rollout.{event.value}", subject=f"rollout {number}", reason=reason
        )

    def _tell(self, number: int) -> None:
        self._changes.publish("rollout", str(number))
        self._changes.publish("audit")


def _may_go_back(state: RolloutState) -> bool:
    return state is RolloutState.COMPLETED or (not state.ended and state not in TAKING_BACK)


def rollout_row(connection: Connection, number: int) -> Row[Any]:
    """Return a rollout or raise `NoSuch`."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == number)).one_or_none()
    if row is None:
        raise NoSuch(f"there is no rollout {number}", fix="see: drupelet rollout list")
    return row


def select_devices(connection: Connection, selector: Selector, *, release: str) -> list[Candidate]:
    """Return the approved devices that the selector names and that do not run the release already."""
    rows = connection.execute(
        select(devices.c.id, devices.c.board, devices.c.labels_json, devices.c.hardware_json, devices.c.status_json)
        .where(devices.c.state == "approved")
        .order_by(devices.c.id)
    ).all()
    named, found = 0, []
    for row in rows:
        labels = msgspec.json.decode(row.labels_json, type=dict[str, str])
        hardware = decode_as(Hardware, row.hardware_json)
        if not selector.matches(facts(row.id, row.board, hardware.architecture, hardware.simulated, labels)):
            continue
        named += 1
        status = decode_as(DeviceStatus, row.status_json) if row.status_json else None
        if committed_release(status) != release:
            found.append(Candidate(device=row.id, stratum=stratum(row.board, labels.get(SITE_LABEL, ""))))
    if not named:
        raise NothingToDo(
            f"no approved device matches {selector.text!r}" if selector.text else "no device is approved yet",
            where="selector", fix="see: drupelet device list --selector ...",
        )  # fmt: skip
    if not found:
        raise NothingToDo(f"every selected device ({named}) runs {release} already", where="selector")
    return found


def _refuse_unfit(
    connection: Connection, chosen: Sequence[str], manifest: ReleaseManifest, allowed: Sequence[Variant]
) -> None:
    """A device that can run none of the variants would halt the rollout when its turn comes: it is said before."""
    wanted = set(chosen)
    cannot: list[tuple[str, str]] = []
    asked = select(devices.c.id, devices.c.hardware_json, devices.c.agent_version).order_by(devices.c.id)
    for row in connection.execute(asked):
        if row.id in wanted:
            known = decode_as(Hardware, row.hardware_json)
            # A device that did not say what it runs yet is asked by its own preflight.
            unserved = served(manifest, version=row.agent_version, serves=OURS) if row.agent_version else None
            if unserved is not None:
                cannot.append((row.id, unserved.detail))
                continue
            why = [unfit(variant, known, context_tokens=manifest.context_tokens) for variant in allowed]
            if all(why):
                cannot.append((row.id, next(one.detail for one in why if one)))
    if cannot:
        raise NoVariant(
            f"{names(device for device, _ in cannot)} can run no variant of {manifest.release.path}: {cannot[0][1]}",
            where="selector", fix="narrow the selector, or release a variant that they can run",
        )  # fmt: skip


def _refuse_overlap(connection: Connection, chosen: Sequence[str]) -> None:
    """A device has one order at a time: a second rollout over it would take it out of the first unjudged."""
    rows = connection.execute(
        select(members.c.rollout, members.c.device, rollouts.c.release)
        .join(rollouts, rollouts.c.id == members.c.rollout)
        .where(rollouts.c.state.not_in(ENDED))
        .order_by(members.c.rollout, members.c.device)
    ).all()
    wanted = set(chosen)
    busy = [row for row in rows if row.device in wanted]
    if busy:
        raise WrongState(
            f"rollout {busy[0].rollout} of {busy[0].release} is under way on {names(r.device for r in busy)}",
            where=f"rollout {busy[0].rollout}",
            fix="wait for it, or abort it, or select other devices",
        )
