"""A fleet server without a database: the production decisions over rows in memory.

`plan`, `machine`, `cohort`, `standing`, `assess` and the gate are the real ones; only what SQL does in `fleet` (keeping
rows, one transaction a decision, serials, the condemned list in every order) is done here with plain objects. A server
that dies does so between two decisions: `look(most=2)` takes two and no more, and signs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from drupelet.core.states import Mode, RolloutState, UpdateState
from drupelet.fleet import plan
from drupelet.fleet.assess import Arrived, ClosedPair, Watched, assess, close
from drupelet.fleet.cohort import Candidate, caps, draw, stages, stratum
from drupelet.fleet.machine import AT_RISK, Effect, Event, step
from drupelet.fleet.policy import RolloutPolicy
from drupelet.fleet.standing import committed_release, failure_of, standing, words
from drupelet.gate import Verdict
from drupelet.wire.device_api import DeviceStatus, PollReply, PollRequest
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Condemned, Order

POLL_MS, POLL_ACTIVE_MS = 4_000, 2_000
STEPS_MAX = 50
_AT_REST = (UpdateState.IDLE, UpdateState.FAILED)


@dataclass(slots=True)
class DeviceRow:
    """What the fleet knows of a device."""

    name: str
    site: str
    status: DeviceStatus | None = None
    order: Order | None = None
    signed: Order | None = None
    serial: int = 0
    events_seq: int = 0
    windows_seq: int = 0
    windows_at: int | None = None
    seen_at: int | None = None


@dataclass(slots=True)
class MemberRow:
    """A device of a rollout."""

    device: str
    rank: int
    exposed_at: int | None = None
    first_serial: int = 0
    previous: str = ""
    failure: str = ""


@dataclass(slots=True)
class RolloutRow:
    """A rollout, with what the devices measured for it."""

    number: int
    manifest: ReleaseManifest
    digest: str
    policy: RolloutPolicy
    caps: tuple[int, ...]
    members: list[MemberRow]
    state: RolloutState = RolloutState.PENDING
    reason: str = "started"
    stage: int = 0
    stage_at: int = 0
    paused_by: plan.PausedBy = plan.PausedBy.NOBODY
    verdict: Verdict | None = None
    commands: list[plan.Command] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    pairs: list[ClosedPair] = field(default_factory=list)

    @property
    def release(self) -> str:
        """Its release as `family/version`."""
        return self.manifest.release.path

    @property
    def cap(self) -> int:
        """The most devices that may be exposed now."""
        return self.caps[min(self.stage, len(self.caps) - 1)]

    @property
    def exposed(self) -> tuple[MemberRow, ...]:
        """The members that were ordered to take the release."""
        return tuple(member for member in self.members if member.exposed_at is not None)


Watcher = Callable[[RolloutRow, plan.Model, plan.Decision], None]


class SimServer:
    """Rows, polls, looks. `watch` is called after every decision that was applied."""

    def __init__(self) -> None:
        self.devices: dict[str, DeviceRow] = {}
        self.rollouts: list[RolloutRow] = []
        self.manifests: dict[str, tuple[ReleaseManifest, str]] = {}
        self.condemned: dict[str, Condemned] = {}
        self.now_ms = 0
        self._asked = 0
        self.watch: Watcher | None = None

    # What devices ask

    def poll(self, request: PollRequest) -> PollReply:
        """Take in a heartbeat, as `fleet.intake` does: events and windows once, the status as it came."""
        row = self.devices[request.device]
        for event in request.events:
            if event.seq > row.events_seq and (why := failure_of(event)):
                self._note_failure(row.name, event.release, event.order_serial, why)
        row.events_seq = max(row.events_seq, *(event.seq for event in request.events), 0)
        fresh = [window for window in request.windows if window.seq > row.windows_seq]
        if fresh:
            row.windows_seq, row.windows_at = fresh[-1].seq, self.now_ms
            labelled = [Arrived(row.name, window) for window in fresh if window.block is not None]
            for rollout in self.rollouts[-1:]:
                rollout.arrived += labelled
        row.status, row.seen_at = request.status, self.now_ms
        signed = row.signed.serial if row.signed is not None else 0
        busy = request.status.state not in _AT_REST or request.status.order_serial < signed
        return PollReply(
            poll_after_ms=POLL_ACTIVE_MS if busy else POLL_MS,
            events_taken=row.events_seq,
            windows_taken=row.windows_seq,
            order_serial=signed,
        )

    def _note_failure(self, device: str, release: str, serial: int, why: str) -> None:
        for rollout in self.rollouts:
            for member in rollout.exposed:
                belongs = member.first_serial <= serial if serial else member.first_serial > 0
                same = member.device == device and rollout.release == release
                if same and belongs and not member.failure and not rollout.state.ended:
                    member.failure = why

    # What operators ask

    def start(
        self, manifest: ReleaseManifest, digest: str, *, wanted: tuple[str, ...], policy: RolloutPolicy, seed: str
    ) -> RolloutRow:
        """Draw the cohorts and start a rollout over every device."""
        self.manifests[manifest.release.path] = (manifest, digest)
        drawn = draw([Candidate(row.name, stratum("sim", row.site)) for row in self.devices.values()], seed=seed)
        rollout = RolloutRow(
            number=len(self.rollouts) + 1,
            manifest=manifest,
            digest=digest,
            policy=policy,
            caps=caps(stages(wanted), len(drawn)),
            members=[MemberRow(candidate.device, rank) for rank, candidate in enumerate(drawn)],
            stage_at=self.now_ms,
        )
        self.rollouts.append(rollout)
        return rollout

    def command(self, rollout: RolloutRow, event: Event) -> None:
        """Ask something of a rollout; it is obeyed at the next look."""
        self._asked += 1
        rollout.commands.append(plan.Command(self._asked, event, "operator", "because"))

    def remove(self, device: str) -> None:
        """Take a device out of the fleet: nobody waits for it any more."""
        del self.devices[device]

    # Decisions

    def look(self, *, most: int | None = None) -> None:
        """Take every decision there is, then sign; with `most`, die after so many."""
        taken = 0
        for rollout in self.rollouts:
            if rollout.state.ended and not rollout.commands:
                continue
            for count in range(STEPS_MAX + 1):
                if count == STEPS_MAX:
                    raise AssertionError(f"rollout {rollout.number} took {STEPS_MAX} steps at once")
                if most is not None and taken >= most:
                    return
                if not self._step(rollout):
                    break
                taken += 1
        for row in self.devices.values():
            row.signed = row.order

    def _step(self, rollout: RolloutRow) -> bool:
        if rollout.state in AT_RISK and rollout.exposed and not rollout.policy.direct:
            rollout.verdict = self._judge(rollout)
        model = self.model(rollout)
        decision = plan.decide(model)
        if decision is None:
            return False
        self._apply(rollout, decision)
        if self.watch is not None:
            self.watch(rollout, model, decision)
        return True

    def model(self, rollout: RolloutRow) -> plan.Model:
        """Return what `plan.decide` sees."""
        policy = rollout.policy
        return plan.Model(
            state=rollout.state,
            stage=rollout.stage,
            caps=rollout.caps,
            direct=policy.direct,
            paused_by=rollout.paused_by,
            stage_started_ms=rollout.stage_at,
            now_ms=self.now_ms,
            stage_ms_min=policy.stage_ms_min,
            trial_failures_max=policy.trial_failures_max,
            staged_share=policy.staged_share,
            completed_share=policy.completed_share,
            members=tuple(self._member(rollout, m) for m in rollout.members if m.device in self.devices),
            verdict=rollout.verdict if rollout.state in AT_RISK else None,
            commands=tuple(rollout.commands),
        )

    def _member(self, rollout: RolloutRow, member: MemberRow) -> plan.Member:
        row = self.devices[member.device]
        mode = None
        if row.order is not None and row.order.rollout == rollout.number:
            mode = row.order.mode if row.order.release == rollout.release else Mode.REVERT
        where = standing(
            row.status, release=rollout.release, exposed=member.exposed_at is not None, mode=mode,
            first_serial=member.first_serial, serial=row.serial, failure=member.failure,
        )  # fmt: skip
        return plan.Member(
            device=member.device,
            rank=member.rank,
            standing=where,
            exposed=member.exposed_at is not None,
            mode=mode,
            has_previous=bool(member.previous) and member.previous not in self.condemned,
            failure=member.failure or (words(row.status.reason, row.status.detail) if row.status else ""),
            seen_ms=row.seen_at,
        )

    def _judge(self, rollout: RolloutRow) -> Verdict:
        indexes: dict[str, int] = {}
        for known in rollout.pairs:
            indexes[known.pair.device] = max(indexes.get(known.pair.device, 0), known.pair.index + 1)
        closed = frozenset((known.pair.device, known.serial, known.number) for known in rollout.pairs)
        first = {member.device: member.first_serial for member in rollout.exposed}
        rollout.arrived = [
            a for a in rollout.arrived
            if (b := a.window.block) is not None and (a.device, b.serial, b.pair) not in closed
            and a.device in first and b.serial >= first[a.device]
        ]  # fmt: skip
        rollout.pairs += close(
            rollout.arrived, release=rollout.release, next_index=indexes, closed=closed, hardware={},
            not_before_s=rollout.pairs[-1].pair.complete_at_s if rollout.pairs else 0.0, now_s=self.now_ms / 1000.0,
        )  # fmt: skip
        watched = [
            Watched(member.device, "", at if at is not None and at >= (member.exposed_at or 0) else None)
            for member in rollout.exposed
            if member.device in self.devices
            for at in [self.devices[member.device].windows_at]
        ]
        return assess(
            rollout.policy.gate_policy(), [known.pair for known in rollout.pairs], canaries=watched,
            stage_started_ms=rollout.stage_at, now_ms=self.now_ms,
        )  # fmt: skip

    def _apply(self, rollout: RolloutRow, decision: plan.Decision) -> None:
        """One transaction of `fleet.reconcile`."""
        rollout.commands = [command for command in rollout.commands if command.id != decision.command]
        if decision.event is not None:
            transition = step(rollout.state, decision.event)
            if rollout.state is RolloutState.PENDING or Effect.ADVANCE in transition.effects:
                rollout.stage_at = self.now_ms
            rollout.stage += Effect.ADVANCE in transition.effects
            rollout.state = transition.after
            rollout.paused_by = decision.paused_by if transition.after is RolloutState.PAUSED else plan.PausedBy.NOBODY
            if decision.event is not Event.TAKEN_BACK:
                rollout.reason = decision.reason
            if Effect.CONDEMN in transition.effects:
                self._condemn(rollout, decision.reason)
        for device, mode in decision.orders:
            self._give(rollout, device, mode)

    def _condemn(self, rollout: RolloutRow, reason: str) -> None:
        if rollout.release in self.condemned:
            return
        self.condemned[rollout.release] = Condemned(
            release=rollout.release, manifest=rollout.digest, reason=reason[:1000]
        )
        for row in self.devices.values():
            if row.order is not None:
                row.serial += 1
                listed = tuple(self.condemned.values())
                row.order = msgspec.structs.replace(row.order, serial=row.serial, condemned=listed)

    def _give(self, rollout: RolloutRow, device: str, mode: Mode) -> None:
        row = self.devices[device]
        member = next(member for member in rollout.members if member.device == device)
        manifest, digest = rollout.manifest, rollout.digest
        if mode is Mode.REVERT:
            manifest, digest = self.manifests[member.previous]
            held = {slot.release for slot in row.status.slots} if row.status else set()
            mode = Mode.REVERT if row.status is None or member.previous in held else Mode.INSTALL
        elif member.exposed_at is None:
            member.exposed_at, member.first_serial = self.now_ms, row.serial + 1
            member.previous = committed_release(row.status)
        row.serial += 1
        row.order = Order(
            device=device,
            serial=row.serial,
            mode=mode,
            release=manifest.release.path,
            manifest=digest,
            variants=("q8_0",),
            rollout=rollout.number,
            crossover=rollout.policy.crossover if mode is Mode.CANARY else None,
            probation_ms=rollout.policy.probation_ms,
            verdict_ms_max=rollout.policy.verdict_ms_max,
            condemned=tuple(self.condemned.values()),
        )
