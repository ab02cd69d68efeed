"""What becomes of the two slots' children: events in, effects out. Opens nothing, waits for nothing, knows no clock.

The theory. A slot is empty or holds one load: a verified release and the child that runs it. A child is started,
becomes ready, and dies or is stopped; one that dies unasked is started again after a rest that doubles each time.
`TABLE` says which event moves a slot from which state to which; a pair that is not in it is a fault of this program and
changes nothing.

New conversations go to the *routed* slot. Only the agent changes the route, with two exceptions: a load that came from
`serve.json` (what the device committed) is routed when nothing is, or when what is routed no longer runs. So a release
that is on trial never answers a user because something else died.

Every start has a number, its `turn`; what is reported of an older turn is ignored, so late news can do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.wire.control import Answer, CannotDo, Done, Load, Loaded
from drupelet.wire.telemetry import BlockLabel

RESTARTS_BEFORE_FALLBACK = 3
"""Failures in a row after which the other release of `serve.json` is loaded: one is chance, three are a pattern."""


class ChildState(Enum):
    """What a slot's child is doing."""

    EMPTY = "empty"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    RESTING = "resting"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class LoadAsked:
    """Load this. `ask` is whom to answer; None means that it comes from `serve.json`."""

    load: Load
    ask: int | None = None

    @property
    def slot(self) -> Slot:
        """The load's slot."""
        return self.load.slot


@dataclass(frozen=True, slots=True)
class Started:
    """The child answers."""

    slot: Slot
    turn: int
    load_ms: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The child never became ready."""

    slot: Slot
    turn: int
    reason: Reason
    exit: ExitReason
    words: str


@dataclass(frozen=True, slots=True)
class Died:
    """The child ended; also said of one that was asked to stop. `stable`: it had been ready for long."""

    slot: Slot
    turn: int
    exit: ExitReason
    words: str = ""
    stable: bool = False


@dataclass(frozen=True, slots=True)
class Rested:
    """The rest before a restart is over."""

    slot: Slot
    turn: int


@dataclass(frozen=True, slots=True)
class Drained:
    """No request runs on the slot any more, or those that do had time enough."""

    slot: Slot
    turn: int


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """Stop the slot's child."""

    slot: Slot
    ask: int | None = None


@dataclass(frozen=True, slots=True)
class RouteAsked:
    """Send new conversations here."""

    slot: Slot
    ask: int
    block: BlockLabel | None = None
    discard_ms: int = 0


Event: TypeAlias = LoadAsked | Started | StartFailed | Died | Rested | Drained | UnloadAsked | RouteAsked


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child; say `Started` or `StartFailed`, and later `Died`."""

    slot: Slot
    turn: int
    load: Load


@dataclass(frozen=True, slots=True)
class StopChild:
    """End the child, or its start; say `Died`."""

    slot: Slot
    turn: int


@dataclass(frozen=True, slots=True)
class Rest:
    """Say `Rested` after the back-off for this many failures in a row."""

    slot: Slot
    turn: int
    failures: int


@dataclass(frozen=True, slots=True)
class AwaitDrained:
    """Say `Drained` when no request runs on the slot, or when the time for it is over."""

    slot: Slot
    turn: int


@dataclass(frozen=True, slots=True)
class CountExit:
    """A child of this load ended."""

    load: Load
    reason: ExitReason
    words: str


@dataclass(frozen=True, slots=True)
class Routed:
    """New conversations go to this load's slot from now on."""

    load: Load
    block: BlockLabel | None = None
    discard_ms: int = 0


@dataclass(frozen=True, slots=True)
class Fallback:
    """Load what `serve.json` has for another slot than this one."""

    instead_of: Slot


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the agent."""

    ask: int
    answer: Answer


Effect: TypeAlias = StartChild | StopChild | Rest | AwaitDrained | CountExit | Routed | Fallback | Reply


@dataclass(slots=True)
class Held:
    """What a slot holds."""

    state: ChildState = ChildState.EMPTY
    load: Load | None = None
    turn: int = 0
    failures: int = 0
    """In a row, since the child last was ready for long."""
    load_ms: int = 0
    memory_bytes: int = 0
    committed: bool = False
    """It came from `serve.json`."""
    trusted: bool = False
    """New conversations were routed to it since it was loaded: it may stand in for the other slot."""
    asks: list[int] = field(default_factory=list)
    """Who waits for the load or the unload under way."""


_S = ChildState
TABLE: dict[tuple[ChildState, type], tuple[ChildState, str]] = {
    # state            event          next state      what is done
    (_S.EMPTY, LoadAsked): (_S.LOADING, "_begin"),
    (_S.LOADING, LoadAsked): (_S.LOADING, "_join"),
    (_S.RESTARTING, LoadAsked): (_S.RESTARTING, "_join"),
    (_S.READY, LoadAsked): (_S.READY, "_loaded_already"),
    (_S.RESTING, LoadAsked): (_S.RESTARTING, "_begin"),
    (_S.LOADING, Started): (_S.READY, "_ready"),
    (_S.RESTARTING, Started): (_S.READY, "_ready"),
    (_S.LOADING, StartFailed): (_S.EMPTY, "_load_failed"),
    (_S.RESTARTING, StartFailed): (_S.RESTING, "_rest"),
    (_S.STOPPING, StartFailed): (_S.EMPTY, "_gone"),
    (_S.READY, Died): (_S.RESTING, "_rest"),
    (_S.DRAINING, Died): (_S.EMPTY, "_gone"),
    (_S.STOPPING, Died): (_S.EMPTY, "_gone"),
    (_S.RESTING, Rested): (_S.RESTARTING, "_restart"),
    (_S.DRAINING, Drained): (_S.STOPPING, "_stop"),
    (_S.EMPTY, UnloadAsked): (_S.EMPTY, "_done"),
    (_S.RESTING, UnloadAsked): (_S.EMPTY, "_gone"),
    (_S.READY, UnloadAsked): (_S.DRAINING, "_drain"),
    (_S.LOADING, UnloadAsked): (_S.STOPPING, "_stop"),
    (_S.RESTARTING, UnloadAsked): (_S.STOPPING, "_stop"),
    (_S.DRAINING, UnloadAsked): (_S.DRAINING, "_join"),
    (_S.STOPPING, UnloadAsked): (_S.STOPPING, "_join"),
}


class NoTransition(RuntimeError):
    """A pair that is not in `TABLE`: a fault of this program."""


class Machine:
    """The two slots and the route. `on` takes an event and returns what must be done, in order."""

    def __init__(self) -> None:
        self.slots = {slot: Held() for slot in Slot}
        self.routed: Slot | None = None

    def usable(self) -> frozenset[Slot]:
        """Slots that may answer users now."""
        return frozenset(
            slot
            for slot, held in self.slots.items()
            if held.state is ChildState.READY and (held.trusted or slot is self.routed)
        )

    def hopeful(self) -> bool:
        """Whether something answers users, or will without anybody's doing: then a request may wait."""
        coming = {ChildState.READY, ChildState.RESTING, ChildState.RESTARTING}
        return any(
            (held.trusted and held.state in coming) or (held.committed and held.state is ChildState.LOADING)
            for held in self.slots.values()
        )

    def on(self, event: Event) -> list[Effect]:
        """Return the effects of `event`; raises `NoTransition` for what cannot happen."""
        held = self.slots[event.slot]
        if isinstance(event, RouteAsked):
            return self._route(event, held)
        if isinstance(event, (Started, StartFailed, Died, Rested, Drained)) and event.turn != held.turn:
            return []
        refusal = self._refusal(event, held)
        if refusal is not None:
            return refusal
        row = TABLE.get((held.state, type(event)))
        if row is None:
            raise NoTransition(f"slot {event.slot.value} is {held.state.value} and got {type(event).__name__}")
        held.state = row[0]
        doing: Callable[[Event, Held], list[Effect]] = getattr(self, row[1])
        return doing(event, held)

    def _refusal(self, event: Event, held: Held) -> list[Effect] | None:
        """Return the answer to what is possible but not allowed, or None."""
        why: tuple[Reason, str] | None = None
        name = event.slot.value
        if isinstance(event, LoadAsked):
            if held.state in (ChildState.DRAINING, ChildState.STOPPING):
                why = (Reason.INTERRUPTED, f"slot {name} is being unloaded; ask again when it is empty")
            elif held.load is not None and not _same(held.load, event.load):
                why = (Reason.LOAD_FAILED, f"slot {name} holds {held.load.release}; unload it first")
        elif isinstance(event, UnloadAsked) and event.slot is self.routed and held.state is not ChildState.EMPTY:
            why = (Reason.NO_OTHER_SLOT, f"new conversations are routed to slot {name}; route them elsewhere first")
        if why is None:
            return None
        ask = event.ask if isinstance(event, (LoadAsked, UnloadAsked)) else None
        return [] if ask is None else [Reply(ask, CannotDo(reason=why[0], detail=why[1]))]

    def _route(self, event: RouteAsked, held: Held) -> list[Effect]:
        if held.state is not ChildState.READY or held.load is None:
            dead = held.state in (ChildState.RESTING, ChildState.RESTARTING)
            reason = Reason.CHILD_DIED if dead else Reason.NO_OTHER_SLOT
            detail = f"slot {event.slot.value} is {held.state.value}, so it cannot be routed to"
            return [Reply(event.ask, CannotDo(reason=reason, detail=detail))]
        self.routed = event.slot
        held.trusted = True
        return [Routed(held.load, event.block, event.discard_ms), Reply(event.ask, Done())]

    def _begin(self, event: LoadAsked, held: Held) -> list[Effect]:
        held.load = event.load
        held.committed = held.committed or event.ask is None
        return [*self._join(event, held), *self._restart(event, held)]

    def _join(self, event: LoadAsked | UnloadAsked, held: Held) -> list[Effect]:
        if event.ask is not None:
            held.asks.append(event.ask)
        return []

    def _restart(self, event: Event, held: Held) -> list[Effect]:
        held.turn += 1
        return [StartChild(event.slot, held.turn, _load_of(held))]

    def _loaded_already(self, event: LoadAsked, held: Held) -> list[Effect]:
        self._join(event, held)
        return self._tell(held, Loaded(load_ms=held.load_ms, memory_bytes=held.memory_bytes))

    def _ready(self, event: Started, held: Held) -> list[Effect]:
        held.load_ms, held.memory_bytes = event.load_ms, event.memory_bytes
        effects = self._tell(held, Loaded(load_ms=event.load_ms, memory_bytes=event.memory_bytes))
        routed = self.slots[self.routed] if self.routed is not None else None
        if held.committed and (routed is None or routed.state is not ChildState.READY):
            self.routed = event.slot
            held.trusted = True
            effects.append(Routed(_load_of(held)))
        return effects

    def _load_failed(self, event: StartFailed, held: Held) -> list[Effect]:
        load, committed = _load_of(held), held.committed
        effects: list[Effect] = [CountExit(load, event.exit, event.words)]
        effects += self._tell(held, CannotDo(reason=event.reason, detail=event.words[:1000]))
        self._clear(event.slot)
        return [*effects, Fallback(event.slot)] if committed else effects

    def _rest(self, event: StartFailed | Died, held: Held) -> list[Effect]:
        if isinstance(event, Died) and event.stable:
            held.failures = 0
        held.failures += 1
        effects: list[Effect] = [CountExit(_load_of(held), event.exit, event.words)]
        if isinstance(event, StartFailed):
            effects += self._tell(held, CannotDo(reason=event.reason, detail=event.words[:1000]))
        effects.append(Rest(event.slot, held.turn, held.failures))
        other = self.slots[event.slot.other]
        if event.slot is self.routed and held.failures == RESTARTS_BEFORE_FALLBACK and other.load is None:
            effects.append(Fallback(event.slot))
        return effects

    def _drain(self, event: UnloadAsked, held: Held) -> list[Effect]:
        return [*self._join(event, held), AwaitDrained(event.slot, held.turn)]

    def _stop(self, event: UnloadAsked | Drained, held: Held) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(event, UnloadAsked):
            # Whoever waits for the load hears that it was taken back; who asked to unload waits for the end.
            effects = self._tell(held, CannotDo(reason=Reason.INTERRUPTED, detail="it was unloaded while it loaded"))
            self._join(event, held)
        return [*effects, StopChild(event.slot, held.turn)]

    def _gone(self, event: Event, held: Held) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(event, (Died, StartFailed)):
            effects.append(CountExit(_load_of(held), event.exit, event.words))
        elif isinstance(event, UnloadAsked):
            self._join(event, held)
        effects += self._tell(held, Done())
        self._clear(event.slot)
        return effects

    def _done(self, event: UnloadAsked, held: Held) -> list[Effect]:
        self._join(event, held)
        return self._tell(held, Done())

    def _tell(self, held: Held, answer: Answer) -> list[Effect]:
        asks, held.asks = held.asks, []
        return [Reply(ask, answer) for ask in asks]

    def _clear(self, slot: Slot) -> None:
        # The turn goes on counting, so that news of the old child stays old.
        self.slots[slot] = Held(turn=self.slots[slot].turn + 1)
        if self.routed is slot:
            self.routed = None


def _same(one: Load, two: Load) -> bool:
    """Whether two loads mean the same bytes as the same release."""
    return (one.digest, one.manifest, one.release, one.context_tokens) == (
        two.digest,
        two.manifest,
        two.release,
        two.context_tokens,
    )


def _load_of(held: Held) -> Load:
    if held.load is None:
        raise NoTransition("a slot without a load has a child")
    return held.load
