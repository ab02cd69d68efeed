"""Probation: serve in drawn blocks, watch the new release, and take it back without asking anybody if it must be.

What ends it: a commit order or, in `install` mode, enough clean time; too many deaths of the new child; canonical
prompts that fail; silence of the fleet for `verdict_ms_max`. Time is counted by the monotonic clock and journalled now
and then, so that restarts neither start it anew nor stretch it by more than one such interval.
"""

from __future__ import annotations

from drupelet.agent import events as e
from drupelet.agent import trial
from drupelet.agent.crossover import Pair, may_draw
from drupelet.agent.effects import Asking
from drupelet.agent.model import DeviceState, Update
from drupelet.agent.slots import load_of
from drupelet.agent.work import WAIT_MS, BringUp, Means, route, status_of
from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Mode, Reason
from drupelet.wire.control import AskStatus, CannotDo, ChildStatus, GatewayStatus, Route, Trial, TrialReport
from drupelet.wire.orders import Order

LOOK_MS = 1_000
"""How often the children are looked at."""
NOTE_MS_MIN, NOTE_MS_MAX = 1_000, 60_000
"""How often the time on probation is journalled: a twentieth of the shorter timer, within these bounds."""
LOADS_MAX = 2
"""Failed loads in a row of the new release on probation before it is taken back."""


class Watch:
    """The probation of one release."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._begun_ms: int | None = None
        self._before_ms = 0
        self._noted_ms = 0
        self._pair: Pair | None = None
        self._done: int | None = None
        self._routed: tuple[Slot, int, str] | None = None
        self._routed_ms = 0
        self._boot = ""
        self._deaths = 0
        self._loads_failed = 0
        self._looked_ms: int | None = None
        self._ready = False
        self._bring_up: BringUp | None = None
        self._prompt = _PromptWatch(means)
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Look, count, route; return what ends the probation, or what must be on record first."""
        update = state.update
        slot = update.slot if update is not None else None
        order = update.order if update is not None else None
        if update is None or order is None or slot is None or slot not in state.slots:
            return e.Recalled(reason=Reason.INTERRUPTED, detail="the new slot holds nothing", to=state.safe_slot)
        now = self._means.ports.clock.monotonic_ms()
        if self._begun_ms is None:
            self._begun_ms, self._before_ms, self._noted_ms = now, update.watched_ms, update.watched_ms
        if self._done is None:
            self._done = update.pairs_done
        watched = self._before_ms + now - self._begun_ms
        ended = self._timers(state, order, watched) or self._look(state, slot, now)
        if ended is None:
            ended = self._serve(state, update, slot, now)
        if ended is None:
            ended = self._prompt.step(state, slot, now, may_ask=self._ready and self._is_unmeasured(order, now))
        if ended is None and watched - self._noted_ms >= _note_ms(order):
            self._noted_ms = watched
            return e.Watched(watched_ms=watched, pairs_done=self._done)
        self.wait_ms = 0 if ended is not None or self._bring_up is not None else self._rest(order, now)
        return ended

    def _timers(self, state: DeviceState, order: Order, watched: int) -> e.AnyEvent | None:
        if order.mode in (Mode.INSTALL, Mode.COMMIT) and watched >= order.probation_ms and self._ready:
            said = "kept as ordered" if order.mode is Mode.COMMIT else f"{watched} ms without trouble"
            return e.ProbationPassed(detail=said)
        if watched >= max(order.verdict_ms_max, order.probation_ms):
            return _back(state, Reason.NO_VERDICT, f"no verdict within {order.verdict_ms_max} ms")
        return None

    def _look(self, state: DeviceState, slot: Slot, now: int) -> e.AnyEvent | None:
        """Ask the gateway how the children are; bring back what is missing; count deaths."""
        if self._bring_up is not None:
            return self._brought(self._bring_up, state, slot)
        if self._looked_ms is not None and now - self._looked_ms < LOOK_MS:
            return None
        self._looked_ms = now
        status = status_of(self._means.ports.gateway.ask(AskStatus()))
        child = next((c for c in status.children if c.slot is slot), None)
        died = self._count_deaths(child, status)
        if died > self._means.config.updates.child_deaths_max:
            return _back(state, Reason.CHILD_DIED, f"its child died {died} times on probation")
        over = _memory_exceeded(child, state, slot)
        if over:
            return _back(state, Reason.MEMORY_EXCEEDED, over)
        self._ready = child is not None and child.state == "ready"
        wanted = [s for s in (state.committed, slot) if s is not None]
        there = {c.slot for c in status.children}
        missing = next((s for s in wanted if s not in there), None)
        if missing is not None:
            self._routed = None
            load = load_of(missing, state.slots[missing], self._means.slots.layout)
            self._bring_up = BringUp(self._means, load)
        return None

    def _brought(self, bring_up: BringUp, state: DeviceState, slot: Slot) -> e.AnyEvent | None:
        answer = bring_up.step()
        if answer is None:
            return None
        self._bring_up = None
        if bring_up.load.slot is slot:
            self._loads_failed = self._loads_failed + 1 if isinstance(answer, CannotDo) else 0
            if isinstance(answer, CannotDo) and self._loads_failed >= LOADS_MAX:
                return _back(state, Reason.CHILD_DIED, f"it cannot be loaded again: {answer.detail}"[:1000])
        return None

    def _count_deaths(self, child: ChildStatus | None, status: GatewayStatus) -> int:
        exits = {} if child is None else child.exits
        total = sum(count for reason, count in exits.items() if reason is not ExitReason.STOPPED)
        if status.boot != self._boot:
            first = not self._boot
            self._boot, self._routed = status.boot, None
            # A gateway counts from its own start: what died before this probation is not held against it.
            self._deaths = total if first else 0
        return total - self._deaths

    def _serve(self, state: DeviceState, update: Update, slot: Slot, now: int) -> e.AnyEvent | None:
        """Route as the mode asks: the new release, or blocks by coin."""
        order = update.order
        if order is None or self._bring_up is not None or not self._ready:
            return None
        plan = order.crossover
        if order.mode is not Mode.CANARY or plan is None or state.committed is None:
            # After a commit order the new release serves alone for what is left of its least time.
            self._pair = None
            self._route(Route(slot=slot), now)
            return None
        if self._pair is not None and self._pair.index != update.pairs_drawn - 1:
            self._pair = None
        if self._pair is not None and self._pair.arm_at(now, plan) is None:
            self._pair, self._done = None, (self._done or 0) + 1
        if self._pair is None:
            if not may_draw(update.pairs_drawn, plan):
                self._route(Route(slot=state.committed), now)
                return None
            coin = self._means.ports.coins.flip()
            self._pair = Pair(update.pairs_drawn, coin, now)
            return e.CoinDrawn(pair=update.pairs_drawn, new_first=coin, pairs_done=self._done or 0)
        pair = self._pair
        arm = pair.arm_at(now, plan) or pair.second
        to = slot if arm == "new" else state.committed
        begun = self._routed is not None and self._routed[1] == pair.index
        if self._route(Route(slot=to, block=pair.label(arm, order.serial), discard_ms=plan.discard_ms), now):
            self._pair = pair.routed(arm, now, begun=begun)
        return None

    def _route(self, question: Route, now: int) -> bool:
        """Route unless it is so already; return whether it was changed."""
        label = question.block
        key = (question.slot, -1 if label is None else label.pair, "" if label is None else label.arm)
        if self._routed == key:
            return False
        if route(self._means, question) is not None:
            # The child is not there just now; the next look brings it back or counts its death.
            self._looked_ms, self._ready = None, False
            return False
        self._routed, self._routed_ms = key, now
        return True

    def _is_unmeasured(self, order: Order, now: int) -> bool:
        """Whether a prompt of our own disturbs no measurement: outside blocks, or in the part that does not count."""
        if self._routed is None or self._routed[1] < 0 or order.crossover is None:
            return True
        return self._routed[2] == "new" and now - self._routed_ms <= order.crossover.discard_ms

    def _rest(self, order: Order, now: int) -> int:
        looked = self._looked_ms if self._looked_ms is not None else now
        rest = max(10, looked + LOOK_MS - now)
        if self._pair is not None and order.crossover is not None:
            rest = min(rest, max(1, self._pair.change_at_ms(order.crossover) - now))
        return rest

    def close(self) -> None:
        """Give up waiting."""
        self._prompt.close()
        if self._bring_up is not None:
            self._bring_up.close()
            self._bring_up = None


class _PromptWatch:
    """Asks the release on probation one canonical prompt now and then, each in turn. Judges words, never speed."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._asking: Asking | None = None
        self._asked_ms: int | None = None
        self._turn = 0
        self._failures = 0

    def step(self, state: DeviceState, slot: Slot, now: int, *, may_ask: bool) -> e.AnyEvent | None:
        """Ask when due; return a recall when too many in a row failed."""
        updates = self._means.config.updates
        if self._asking is None:
            self._asked_ms = now if self._asked_ms is None else self._asked_ms
            if not may_ask or now - self._asked_ms < updates.watch_prompt_ms:
                return None
            prompts = state.slots[slot].document.canonical_prompts
            prompt = prompts[self._turn % len(prompts)]
            self._asked_ms = now
            asked = Trial(slot=slot, prompts=(prompt,), answer_ms_max=updates.answer_ms_max)
            self._asking = self._means.ports.gateway.begin(asked)
        answer = self._asking.answer(min(WAIT_MS, 20))
        if answer is None:
            return None
        self.close()
        if not isinstance(answer, TrialReport):
            return None
        prompts = state.slots[slot].document.canonical_prompts
        judged = trial.judge_answers(answer.results, (prompts[self._turn % len(prompts)],))
        self._turn += 1
        self._failures = 0 if judged.passed else self._failures + 1
        if self._failures >= updates.watch_failures_max:
            return _back(state, Reason.WATCHDOG, judged.detail)
        return None

    def close(self) -> None:
        """Give up waiting."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def _memory_exceeded(child: ChildStatus | None, state: DeviceState, slot: Slot) -> str:
    most = state.slots[slot].document.budgets.memory_bytes_max
    if child is None or most is None or child.memory_bytes <= most:
        return ""
    return f"its child has {child.memory_bytes} bytes of memory, {most} are allowed"


def _back(state: DeviceState, reason: Reason, detail: str) -> e.AnyEvent:
    """Take the release back, or say that there is nothing to go back to and let it serve on."""
    if state.committed is None:
        said = f"{detail}; no other slot holds a release, so it serves on"
        return e.Stuck(reason=Reason.NO_OTHER_SLOT, detail=said[:1000])
    return e.Recalled(reason=reason, detail=detail, to=state.committed)


def _note_ms(order: Order) -> int:
    shorter = min(order.probation_ms or NOTE_MS_MAX, order.verdict_ms_max)
    return max(NOTE_MS_MIN, min(NOTE_MS_MAX, shorter // 20))
