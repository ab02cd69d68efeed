"""What a device knows of itself: the fold of its journal. Immutable, and whole in one snapshot line."""

from __future__ import annotations

from enum import Enum

import msgspec

from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.wire.device_api import DeviceEvent
from drupelet.wire.fields import Bytes, Count, DigestText, Milliseconds, NameText, ReleaseText, Sentence
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Condemned, Order

RECENT_MAX = 200
"""Events kept in the state: what `history` shows and what an outage of the fleet may hold back; one poll's worth."""

S = UpdateState
RESTING = frozenset({S.IDLE, S.FAILED})
BEFORE_SWITCH = frozenset({S.PREFLIGHT, S.DOWNLOADING, S.VERIFYING, S.INSTALLING, S.TRIAL})
ON_PROBATION = frozenset({S.SWITCHING, S.PROBATION})


class Standing(Enum):
    """What is known of a slot's release. Unknown is not bad, and only `good` may be gone back to."""

    UNTRIED = "untried"
    TRIED = "tried"
    GOOD = "good"
    BAD = "bad"


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that lies verified in a slot. `document` is the manifest that both repositories vouched for."""

    release: ReleaseText
    manifest: DigestText
    variant: NameText
    digest: DigestText
    size_bytes: Bytes
    document: ReleaseManifest
    standing: Standing = Standing.UNTRIED

    def is_release(self, order: Order) -> bool:
        """Whether this is the very release an order names."""
        return self.release == order.release and self.manifest == order.manifest


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The update in flight, or the last one while the machine rests in `failed`."""

    order: Order | None = None
    """None where an operator's rollback, not an order, began it. Without its condemned list, which is kept apart."""
    slot: Slot | None = None
    """The slot being written, tried or watched; when reverting, the slot being left."""
    target: Held | None = None
    back_to: Slot | None = None
    """The slot a revert goes to."""
    cause: Reason = Reason.NONE
    """Why it is gone back, and `why` in words; kept here because a delay on the way has a reason of its own."""
    why: Sentence = ""
    faults: Count = 0
    """Downloads whose content was wrong."""
    trials: Count = 0
    """Trials begun."""
    watched_ms: Milliseconds = 0
    """Time on probation, by monotonic clocks, over all restarts."""
    pairs_drawn: Count = 0
    """Coins drawn under this order's serial; the next pair's number."""
    pairs_done: Count = 0
    """Pairs of which both blocks ran to their end."""

    @property
    def mode(self) -> Mode:
        """What was ordered; an operator's rollback is a revert."""
        return self.order.mode if self.order is not None else Mode.REVERT

    def concerns(self, order: Order) -> bool:
        """Whether this update is about the release that `order` names."""
        mine = self.order
        return mine is not None and mine.release == order.release and mine.manifest == order.manifest


class DeviceState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a restart needs. `slots` is never changed in place."""

    state: UpdateState = UpdateState.IDLE
    reason: Reason = Reason.NONE
    detail: str = ""
    seq: Count = 0
    """The journal's newest entry."""
    serial: Count = 0
    """The newest order accepted."""
    update: Update | None = None
    slots: dict[Slot, Held] = {}
    committed: Slot | None = None
    serving: Slot | None = None
    """Where conversations go outside drawn blocks."""
    condemned: tuple[Condemned, ...] = ()
    """Only grows."""
    held: bool = False
    """An operator on the device asked that no update begins."""
    recent: tuple[DeviceEvent, ...] = ()

    def is_condemned(self, release: str, manifest: str) -> Condemned | None:
        """Return the condemnation of a release, if there is one; name or manifest is enough."""
        for entry in self.condemned:
            if entry.release == release or entry.manifest == manifest:
                return entry
        return None

    def good_slot(self, release: str, manifest: str) -> Slot | None:
        """Return the slot that holds this release in good standing."""
        for slot, held in sorted(self.slots.items(), key=lambda item: item[0].value):
            if held.release == release and held.manifest == manifest and held.standing is Standing.GOOD:
                return slot
        return None

    @property
    def safe_slot(self) -> Slot | None:
        """The slot that must never be written: what is committed, else what serves."""
        return self.committed if self.committed is not None else self.serving

    @property
    def in_flight(self) -> bool:
        """Whether an update is under way."""
        return self.state not in RESTING
