"""From a filled slot to a serving one and back: try, switch, commit, revert, and rest. All through the gateway."""

from __future__ import annotations

import msgspec

from drupelet.agent import events as e
from drupelet.agent import trial
from drupelet.agent.effects import Asking
from drupelet.agent.errors import GatewaySilent
from drupelet.agent.model import DeviceState, Held, Standing
from drupelet.agent.slots import load_of
from drupelet.agent.work import LOADS_MAX, TRIALS_MAX, WAIT_MS, BringUp, Means, route, status_of
from drupelet.core.errors import Unavailable
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason
from drupelet.wire.control import AskStatus, CannotDo, Drain, Loaded, Route, Trial, TrialReport, Unload

REST_MS = 5_000
"""How often a resting agent looks whether the gateway serves what it should."""


class Try:
    """The trial: load beside what serves, ask the canonical prompts, judge."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._begun = False
        self._bring_up: BringUp | None = None
        self._loaded: Loaded | None = None
        self._asking: Asking | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Do a slice of the trial. A gateway that falls silent in its middle has interrupted it."""
        update = state.update
        if update is None or update.slot is None or update.target is None:
            return e.Refused(reason=Reason.INTERRUPTED, detail="there is nothing to try")
        if not self._begun:
            if update.trials >= TRIALS_MAX:
                said = f"the trial was interrupted {TRIALS_MAX} times"
                return e.Refused(reason=Reason.INTERRUPTED, detail=said)
            # A gateway that is not there cannot be interrupted: only count a trial that can begin.
            status_of(self._means.ports.gateway.ask(AskStatus()))
            self._begun = True
            return e.TrialBegun()
        try:
            return self._trial(update.slot, update.target)
        except Unavailable:
            self.close()
            raise

    def _trial(self, slot: Slot, held: Held) -> e.AnyEvent | None:
        if self._loaded is None:
            if self._bring_up is None:
                self._bring_up = BringUp(self._means, load_of(slot, held, self._means.slots.layout))
            answer = self._bring_up.step()
            if isinstance(answer, CannotDo):
                return e.Refused(reason=answer.reason, detail=answer.detail)
            self._loaded = answer
            return None
        manifest = held.document
        if self._asking is None:
            limit = manifest.budgets.answer_ms_max
            most = self._means.config.updates.answer_ms_max
            asked = Trial(slot=slot, prompts=manifest.canonical_prompts, answer_ms_max=max(limit or 0, most))
            self._asking = self._means.ports.gateway.begin(asked)
        report = self._asking.answer(WAIT_MS)
        if report is None:
            return None
        if isinstance(report, CannotDo):
            return e.Refused(reason=report.reason, detail=report.detail)
        if not isinstance(report, TrialReport):
            raise GatewaySilent(f"trial was answered with {type(report).__name__}")
        celsius = self._means.ports.sensors.read().temperature_celsius
        judged = trial.judge(report, manifest, load_ms=self._loaded.load_ms, temperature_celsius=celsius)
        if judged.passed:
            return e.TrialPassed(detail=judged.detail)
        return e.Refused(reason=judged.reason, detail=judged.detail)

    def close(self) -> None:
        """Forget how far the trial was: the next step begins it anew, and counts it."""
        for waiting in (self._asking, self._bring_up):
            if waiting is not None:
                waiting.close()
        self._begun, self._bring_up, self._loaded, self._asking = False, None, None, None


class Switch:
    """Make both releases ready; where no canary alternates, send new conversations to the new one."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._bring_up: BringUp | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Load, then route."""
        slot = state.update.slot if state.update else None
        if slot is None or slot not in state.slots:
            return e.Recalled(reason=Reason.INTERRUPTED, detail="the new slot holds nothing", to=state.safe_slot)
        if self._bring_up is None:
            self._bring_up = BringUp(self._means, load_of(slot, state.slots[slot], self._means.slots.layout))
        answer = self._bring_up.step()
        if answer is None:
            return None
        if isinstance(answer, CannotDo):
            return e.Recalled(reason=Reason.CHILD_DIED, detail=answer.detail, to=state.safe_slot)
        canary = state.update is not None and state.update.mode is Mode.CANARY and state.committed is not None
        if not canary:
            refused = route(self._means, Route(slot=slot))
            if refused is not None:
                return e.Recalled(reason=Reason.CHILD_DIED, detail=refused.detail, to=state.safe_slot)
        return e.Switched()

    def close(self) -> None:
        """Give up waiting."""
        if self._bring_up is not None:
            self._bring_up.close()
            self._bring_up = None


class Commit:
    """Keep the release: the slot's own record first, then the route. `serve.json` already names it."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._bring_up: BringUp | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Describe, load, route."""
        slot = state.update.slot if state.update else None
        if slot is None or slot not in state.slots:
            return e.Recalled(reason=Reason.INTERRUPTED, detail="the new slot holds nothing", to=state.safe_slot)
        held = state.slots[slot]
        if self._bring_up is None:
            self._means.slots.describe(slot, msgspec.structs.replace(held, standing=Standing.GOOD))
            self._bring_up = BringUp(self._means, load_of(slot, held, self._means.slots.layout))
        answer = self._bring_up.step()
        if answer is None:
            return None
        refused = answer if isinstance(answer, CannotDo) else route(self._means, Route(slot=slot))
        if refused is None:
            return e.Committed()
        if state.committed is None:
            raise GatewaySilent(refused.detail)
        return e.Recalled(reason=Reason.CHILD_DIED, detail=refused.detail, to=state.committed)

    def close(self) -> None:
        """Give up waiting."""
        if self._bring_up is not None:
            self._bring_up.close()
            self._bring_up = None


ITSELF = frozenset(
    {
        Reason.WATCHDOG,
        Reason.CHILD_DIED,
        Reason.MEMORY_EXCEEDED,
        Reason.NO_VERDICT,
        Reason.OPERATOR,
        Reason.CONDEMNED,
        Reason.INTERRUPTED,
    }
)
"""Reasons to go back that no revert order gave: the machine then rests in `failed` until a newer order."""


class Revert:
    """Go back: load and route the old release, then let the new one end. No network, no fleet."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._bring_up: BringUp | None = None
        self._routed = False
        self._ending: Asking | None = None
        self._drained = False
        self._loads = 0
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Load, route, drain, unload."""
        to = state.update.back_to if state.update else None
        left = to.other if to is not None else (state.update.slot if state.update else None)
        if to is not None and not self._routed:
            stuck = self._bring_back(to, state)
            if stuck is not None or not self._routed:
                return stuck
        if left is not None and not self._ended(left):
            return None
        if left is not None and left in state.slots:
            self._means.slots.describe(left, state.slots[left])
        itself = state.update is not None and state.update.cause in ITSELF
        return e.TakenBack() if itself else e.Reverted()

    def _bring_back(self, to: Slot, state: DeviceState) -> e.AnyEvent | None:
        if to not in state.slots:
            return e.Stuck(reason=Reason.NO_OTHER_SLOT, detail=f"slot {to.value} holds nothing")
        if self._bring_up is None:
            self._bring_up = BringUp(self._means, load_of(to, state.slots[to], self._means.slots.layout))
        answer = self._bring_up.step()
        if answer is None:
            return None
        refused = answer if isinstance(answer, CannotDo) else route(self._means, Route(slot=to))
        self._bring_up = None
        if refused is None:
            self._routed = True
            return None
        self._loads += 1
        if self._loads < LOADS_MAX:
            return None
        said = f"{state.slots[to].release} in slot {to.value} cannot be loaded: {refused.detail}"
        return e.Stuck(reason=Reason.NO_OTHER_SLOT, detail=said[:1000])

    def _ended(self, slot: Slot) -> bool:
        """Drain and unload; a gateway that refuses has nothing there, or tidies up by itself later."""
        if self._ending is None:
            status = status_of(self._means.ports.gateway.ask(AskStatus()))
            if status.serving is slot or all(child.slot is not slot for child in status.children):
                return True
            question = Unload(slot=slot) if self._drained else Drain(slot=slot)
            self._ending = self._means.ports.gateway.begin(question)
        if self._ending.answer(WAIT_MS) is None:
            return False
        self._ending.close()
        self._ending = None
        ended, self._drained = self._drained, True
        return ended

    def close(self) -> None:
        """Give up waiting."""
        for waiting in (self._bring_up, self._ending):
            if waiting is not None:
                waiting.close()
        self._bring_up = self._ending = None


class Rest:
    """Nothing to do but see that what should serve does, that nothing else takes memory, and that no file is left."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._collected = False
        self._bring_up: BringUp | None = None
        self._ending: Asking | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Look, and mend one thing."""
        if not self._collected:
            self._means.slots.collect(state)
            self._collected = True
        self.wait_ms = 0
        if self._bring_up is not None:
            self._serve(state)
        elif self._ending is not None:
            if self._ending.answer(WAIT_MS) is not None:
                self._ending.close()
                self._ending = None
        else:
            self._look(state)
        return None

    def _look(self, state: DeviceState) -> None:
        slot = state.safe_slot
        status = status_of(self._means.ports.gateway.ask(AskStatus()))
        if slot is not None and slot in state.slots and status.serving is not slot:
            self._bring_up = BringUp(self._means, load_of(slot, state.slots[slot], self._means.slots.layout))
            return
        extra = next((c for c in status.children if c.slot is not status.serving and c.state != "loading"), None)
        if extra is None:
            self.wait_ms = REST_MS
        else:
            self._ending = self._means.ports.gateway.begin(Unload(slot=extra.slot))

    def _serve(self, state: DeviceState) -> None:
        answer = self._bring_up.step() if self._bring_up is not None else None
        if answer is None:
            return
        self._bring_up = None
        slot = state.safe_slot
        if isinstance(answer, CannotDo) or slot is None or route(self._means, Route(slot=slot)) is not None:
            self.wait_ms = REST_MS

    def close(self) -> None:
        """Give up waiting."""
        for waiting in (self._bring_up, self._ending):
            if waiting is not None:
                waiting.close()
        self._bring_up = self._ending = None
