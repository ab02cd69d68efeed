"""What can happen to a device: everything the machine is told, and exactly what the journal holds.

An event says what *is so* (an order was accepted, a blob was verified); the machine answers with the next state and
what is now to be done. The event is durable before it is done.
"""

from __future__ import annotations

import msgspec

from drupelet.agent.model import Held
from drupelet.core.names import Slot
from drupelet.core.states import Reason
from drupelet.wire.fields import Count, Milliseconds, Sentence
from drupelet.wire.orders import Condemned, Order


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", omit_defaults=True):
    """Something that happened. `reason` and `detail` say why, where there is a why."""

    reason: Reason = Reason.NONE
    detail: Sentence = ""


# Orders


class Ordered(Event, frozen=True, kw_only=True, omit_defaults=True, tag="ordered"):
    """A new install or canary order was accepted; an update begins, and one that was under way is dropped."""

    order: Order


class Continued(Event, frozen=True, kw_only=True, omit_defaults=True, tag="continued"):
    """A newer order asks for what is already under way; its times and crossover are the ones that count now."""

    order: Order


class Satisfied(Event, frozen=True, kw_only=True, omit_defaults=True, tag="satisfied"):
    """A newer order asks for what is so already."""

    order: Order


class CommitOrdered(Event, frozen=True, kw_only=True, omit_defaults=True, tag="commit_ordered"):
    """The release on probation is to be kept, once its least time on probation has passed."""

    order: Order


class Recalled(Event, frozen=True, kw_only=True, omit_defaults=True, tag="recalled"):
    """The device goes back to slot `to` (None: there is nothing yet to go back to, the new slot is dropped)."""

    to: Slot | None
    order: Order | None = None
    """The revert order, or None where device or operator decided."""


class Condemning(Event, frozen=True, kw_only=True, omit_defaults=True, tag="condemning"):
    """These releases may never be taken again."""

    condemned: tuple[Condemned, ...]


class HoldSet(Event, frozen=True, kw_only=True, omit_defaults=True, tag="hold_set"):
    """An operator on the device put on or lifted the hold."""

    held: bool


class Noted(Event, frozen=True, kw_only=True, omit_defaults=True, tag="noted"):
    """Something was refused and nothing changed: bad metadata, an order that makes no sense here."""


# Progress


class Delayed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="delayed"):
    """The step cannot be done now and is tried again. `fault` counts content that was wrong."""

    fault: bool = False


class Admitted(Event, frozen=True, kw_only=True, omit_defaults=True, tag="admitted"):
    """Preflight passed: this variant goes to this slot."""

    slot: Slot
    target: Held


class Downloaded(Event, frozen=True, kw_only=True, omit_defaults=True, tag="downloaded"):
    """All bytes are on the disk."""


class Verified(Event, frozen=True, kw_only=True, omit_defaults=True, tag="verified"):
    """The bytes on the disk have the signed digest, and lie in the content store."""


class Lost(Event, frozen=True, kw_only=True, omit_defaults=True, tag="lost"):
    """The bytes that were there are not, or are not what they were: they are fetched again."""


class Installed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="installed"):
    """The slot names the verified file."""


class TrialBegun(Event, frozen=True, kw_only=True, omit_defaults=True, tag="trial_begun"):
    """The new release is being loaded beside the serving one."""


class TrialPassed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="trial_passed"):
    """It answered its canonical prompts within its absolute budgets."""


class Refused(Event, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """A check said no for good; the machine rests in `failed`, serving what it served."""


class Switched(Event, frozen=True, kw_only=True, omit_defaults=True, tag="switched"):
    """The gateway may route to the new slot."""


class CoinDrawn(Event, frozen=True, kw_only=True, omit_defaults=True, tag="coin_drawn"):
    """The coin of a pair of blocks, on record before the first block begins."""

    pair: Count
    new_first: bool
    pairs_done: Count


class Watched(Event, frozen=True, kw_only=True, omit_defaults=True, tag="watched"):
    """The probation has lasted this long, so that a restart does not start it anew."""

    watched_ms: Milliseconds
    pairs_done: Count = 0


class ProbationPassed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="probation_passed"):
    """The release is to be kept."""


class Committed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="committed"):
    """The release is kept: it is what this device goes back to from now on."""


class Reverted(Event, frozen=True, kw_only=True, omit_defaults=True, tag="reverted"):
    """Gone back as ordered; the machine is idle."""


class TakenBack(Event, frozen=True, kw_only=True, omit_defaults=True, tag="taken_back"):
    """Gone back by the device's or an operator's own decision; the machine rests in `failed` until a newer order."""


class Stuck(Event, frozen=True, kw_only=True, omit_defaults=True, tag="stuck"):
    """It should go back and cannot: what serves goes on serving, because something must."""

    order: Order | None = None


AnyEvent = (
    Ordered | Continued | Satisfied | CommitOrdered | Recalled | Condemning | HoldSet | Noted
    | Delayed | Admitted | Downloaded | Verified | Lost | Installed | TrialBegun | TrialPassed | Refused
    | Switched | CoinDrawn | Watched | ProbationPassed | Committed | Reverted | TakenBack | Stuck
)  # fmt: skip

QUIET = (CoinDrawn, Watched)
"""Journalled, but too many to tell the fleet."""


def name_of(event: Event | type[Event]) -> str:
    """Return the event's name as journalled and as shown: `trial_passed`."""
    kind = event if isinstance(event, type) else type(event)
    return str(kind.__struct_config__.tag)
