"""The loop: fold the journal, do what the state says, in slices, with a heartbeat between any two of them.

Every event takes the same way: the machine steps, the event becomes durable, `serve.json` follows, and only then is
anything done about it. Whatever fails is tried again after a wait that grows; nothing here ends the serving.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from drupelet import __version__
from drupelet.agent import acquire, activate, orders, requests
from drupelet.agent import events as e
from drupelet.agent.config import Config
from drupelet.agent.effects import Ports
from drupelet.agent.heartbeat import Backoff, Heartbeat
from drupelet.agent.journal import Journal
from drupelet.agent.machine import Do, resume
from drupelet.agent.model import RESTING, DeviceState
from drupelet.agent.report import Seen, StatusFile, device_status, gateway_word
from drupelet.agent.slots import Slots
from drupelet.agent.watch import Watch
from drupelet.agent.work import Means, Work, status_of
from drupelet.core.errors import DrupeletError, NotAllowed, NotFound, Unavailable, Untrusted
from drupelet.core.states import Reason, UpdateState
from drupelet.durable import DiskBroken, DiskFull
from drupelet.wire.codec import encode_canonical
from drupelet.wire.control import AskStatus, GatewayStatus, TakeWindows, Windows
from drupelet.wire.orders import Order
from drupelet.wire.telemetry import Window

WORKS: dict[Do, Callable[[Means], Work]] = {
    Do.REST: activate.Rest,
    Do.CHECK: acquire.Check,
    Do.FETCH: acquire.Fetch,
    Do.VERIFY: acquire.Verify,
    Do.WRITE: acquire.Write,
    Do.TRY: activate.Try,
    Do.SWITCH: activate.Switch,
    Do.WATCH: Watch,
    Do.COMMIT: activate.Commit,
    Do.REVERT: activate.Revert,
}
RETRY_MS, RETRY_MS_MAX = 500, 60_000
"""How long a step that failed waits, from the first failure to the many-th."""
WINDOWS_A_TAKE = 200
STATUS_IDLE_MS = 600_000
"""How often the status file of an idle device is written anew: each time is a write to the flash."""


class Agent:
    """One device's agent, its folder's lock held by the caller. Call `start` once, then `tick` for ever."""

    def __init__(self, ports: Ports, config: Config, *, boot: str) -> None:
        self._ports, self._config, self._boot = ports, config, boot
        layout = config.layout
        self._slots = Slots(ports.disk, layout)
        self._means = Means(ports, self._slots, config)
        self._journal = Journal(ports.disk, layout.journal, boot=boot, wall_ms=ports.clock.wall_ms)
        self._heartbeat = Heartbeat(
            ports,
            device=config.device.id,
            boot=boot,
            poll_ms=config.fleet.poll_ms,
            backoff_ms_max=config.fleet.backoff_ms_max,
        )
        self._retry = Backoff(first_ms=RETRY_MS, most_ms=RETRY_MS_MAX, jitter=ports.jitter)
        self._work: Work | None = None
        self._work_at_ms = 0
        self._windows_at_ms = 0
        self._trouble: tuple[Reason, str] | None = None
        self._gateway: GatewayStatus | None = None
        self._told: tuple[object, ...] | None = None
        self._told_at_ms = 0

    @property
    def state(self) -> DeviceState:
        """What the journal says."""
        return self._journal.state

    @property
    def answered_ms(self) -> int:
        """When the fleet last answered, by the device's clock; 0 for never."""
        return self._heartbeat.answered_ms

    def start(self) -> None:
        """Read the journal and make `serve.json` follow it. Raises a disk's error if neither can be."""
        self._journal.open(rebuild=self._slots.rebuild)
        self._slots.publish(self.state)

    def tick(self) -> int:
        """Do at most one slice of each thing that is due; return how many milliseconds nothing is due."""
        self._guarded(self._answer_requests)
        if self._now() >= self._heartbeat.due_ms:
            self._guarded(self._poll)
        if self._now() >= self._windows_at_ms:
            self._windows_at_ms = self._now() + self._config.limits.windows_ms
            self._guarded(self._take_windows)
        self._guarded(self._drop_condemned)
        if self._now() >= self._work_at_ms:
            self._guarded(self._slice)
        self._heartbeat.news(self.state)
        self._guarded(self._tell)
        due = min(self._heartbeat.due_ms, self._windows_at_ms, self._work_at_ms)
        return max(0, min(due - self._now(), self._config.limits.idle_ms))

    def compact(self) -> None:
        """Shorten the journal to one line now."""
        self._guarded(lambda: self._compact(0))

    def _compact(self, bytes_max: int) -> None:
        self._journal.compact_if_large(bytes_max=bytes_max)

    def close(self) -> None:
        """Let go of what is held."""
        if self._work is not None:
            self._work.close()
            self._work = None

    def _now(self) -> int:
        return self._ports.clock.monotonic_ms()

    def _guarded(self, act: Callable[[], None]) -> None:
        """A disk that takes nothing stops the update, never the agent: it is said with every heartbeat."""
        try:
            act()
        except DiskBroken as error:
            reason = Reason.DISK_FULL if isinstance(error, DiskFull) else Reason.DISK_ERROR
            self._trouble = (reason, error.line())
            self._again()

    # Events

    def happen(self, event: e.AnyEvent) -> None:
        """Journal an event, let `serve.json` follow, begin what is to be done."""
        effect = self._journal.append(event)
        self._trouble = None
        self._slots.publish(self.state)
        if effect is not None:
            self._begin(effect)
        self._journal.compact_if_large()

    def _begin(self, effect: Do) -> None:
        self.close()
        self._work = WORKS[effect](self._means)
        self._work_at_ms = self._now()
        self._retry.worked()

    def _again(self) -> None:
        """Begin the state's work anew, after a wait."""
        self.close()
        self._work_at_ms = self._now() + self._retry.failed()

    def _slice(self) -> None:
        if self._work is None:
            # After a failure or a restart: whatever was believed of `serve.json`, make it so before anything is done.
            self._slots.publish(self.state)
            self._work = WORKS[resume(self.state)](self._means)
        work = self._work
        try:
            event = work.step(self.state)
        except (Unavailable, NotAllowed, NotFound) as error:
            if isinstance(error, DiskBroken) and self.state.state in RESTING:
                raise
            self._delayed(error)
            return
        self._work_at_ms = self._now() + work.wait_ms
        if event is None:
            if self._retry.failures and self.state.state not in RESTING:
                self._retry.worked()
                self._cleared()
            return
        if isinstance(event, e.Delayed) and not event.fault:
            self._say_delay(event)
            return
        self.happen(event)

    def _delayed(self, error: DrupeletError) -> None:
        """Wait and begin the step anew; said once, not at every attempt."""
        self._again()
        reason = _reason_of(error)
        if self.state.state not in RESTING:
            self._say_delay(e.Delayed(reason=reason, detail=error.line()[:1000]))

    def _say_delay(self, event: e.Delayed) -> None:
        if event.reason is not self.state.reason:
            self.happen(event)

    def _cleared(self) -> None:
        if self.state.reason is not Reason.NONE and self.state.state is not UpdateState.REVERTING:
            self.happen(e.Delayed())

    def _drop_condemned(self) -> None:
        event = orders.condemned_in_flight(self.state)
        if isinstance(event, e.Refused | e.Recalled):
            self.happen(event)

    # Orders

    def _poll(self) -> None:
        try:
            order = self._heartbeat.poll(self.state, device_status(self.state, self._seen()))
        except Untrusted as error:
            self._note(getattr(error, "reason", Reason.BAD_METADATA), error.line())
            self._heartbeat.said = error.line()[:1000]
            return
        self._journal.skip_to(self._heartbeat.taken)
        if order is not None:
            self.obey(order)

    def obey(self, order: Order) -> None:
        """Act on a verified order."""
        for event in orders.consider(self.state, order):
            if isinstance(event, e.Noted):
                self._note(event.reason, event.detail)
            else:
                self.happen(event)

    def _note(self, reason: Reason, detail: str) -> None:
        """Journal a refusal once for each distinct cause, however often it is repeated."""
        detail = detail[:1000]
        for told in reversed(self.state.recent):
            if told.event == "noted" and (told.reason, told.detail) == (reason, detail):
                return
        self.happen(e.Noted(reason=reason, detail=detail))

    def _answer_requests(self) -> None:
        folder = self._config.layout.requests
        for key, request in requests.waiting(self._ports.disk, folder):
            answer = request
            if isinstance(answer, requests.LocalRequest):
                event = requests.event_for(self.state, answer)
                if isinstance(event, requests.LocalAnswer):
                    answer = event
                else:
                    self.happen(event)
                    answer = requests.LocalAnswer(accepted=True)
            requests.answer(self._ports.disk, folder, key, answer)

    # Telemetry

    def _take_windows(self) -> None:
        ports = self._ports
        try:
            self._gateway = status_of(ports.gateway.ask(AskStatus()))
            after = ports.spool.taken(self._gateway.boot)
            answer = ports.gateway.ask(TakeWindows(after=after, limit=WINDOWS_A_TAKE))
        except Unavailable:
            self._gateway = None
            return
        if isinstance(answer, Windows) and answer.windows:
            ports.spool.append([self._with_sensors(window) for window in answer.windows], boot=answer.boot)
            if len(answer.windows) == WINDOWS_A_TAKE:
                self._windows_at_ms = self._now()

    def _with_sensors(self, window: Window) -> Window:
        readings = self._ports.sensors.read()
        return msgspec.structs.replace(
            window,
            boot=self._boot,
            temperature_celsius=readings.temperature_celsius,
            throttled=readings.throttled,
        )

    # Saying

    def _seen(self) -> Seen:
        ports = self._ports
        done = self._work.done_bytes if isinstance(self._work, acquire.Fetch) else 0
        return Seen(
            readings=ports.sensors.read(),
            gateway=self._gateway,
            gateway_word=gateway_word(self._gateway),
            free_bytes=ports.disk.free_bytes(self._config.layout.root),
            done_bytes=done,
            windows_dropped=ports.spool.dropped,
            clock_ms=ports.clock.wall_ms(),
            trouble=self._trouble,
        )

    def _tell(self) -> None:
        """Write the status file: at once when something happened, seldom for numbers alone."""
        now, state = self._now(), self.state
        key = (state.seq, self._heartbeat.said, gateway_word(self._gateway), self._trouble)
        wait = self._config.limits.status_ms if state.in_flight else STATUS_IDLE_MS
        if key == self._told and now - self._told_at_ms < wait:
            return
        file = StatusFile(
            device=self._config.device.id,
            pid=os.getpid(),
            boot=self._boot,
            written_at_ms=max(0, self._ports.clock.wall_ms()),
            version=__version__,
            fleet=self._heartbeat.said,
            status=device_status(state, self._seen()),
        )
        self._told, self._told_at_ms = key, now
        self._ports.disk.replace(self._config.status_file, encode_canonical(file), mode=0o644)


def _reason_of(error: DrupeletError) -> Reason:
    if isinstance(error, DiskFull):
        return Reason.DISK_FULL
    if isinstance(error, DiskBroken):
        return Reason.DISK_ERROR
    said = getattr(error, "reason", Reason.SERVER_UNREACHABLE)
    return said if isinstance(said, Reason) else Reason.SERVER_UNREACHABLE
