"""Which time it is, for a device without a clock.

Expiry is only as good as the clock, and a Raspberry Pi has none of its own: after a cold boot it may say 1970, last
month, or whatever the first network answered. Two rules follow.

- Only signed times move the *floor*, the latest moment known to have passed: roots and the image repository's
  timestamp say when they were signed, under keys that do not lie on the fleet server. The device's clock never moves
  the floor, so a wrong clock does harm for as long as it is wrong and no longer; and a stolen fleet server cannot push
  the floor into 2040.
- The clock is believed between the floor and `CLOCK_AHEAD_MAX` past it. Outside (1970; 2040) the floor itself is taken
  for the present: what was current then is accepted, what had expired by then is not, and no version ever goes down.

docs/adr/0010-time.md has the argument and what remains.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

CLOCK_AHEAD_MAX = timedelta(days=2 * 365)
"""A device may lie in a warehouse for two years and still be believed; 2040 is not."""


def reference_time(*, clock: datetime, floor: datetime) -> datetime:
    """Return the time to judge expiry by."""
    return clock if floor <= clock <= floor + CLOCK_AHEAD_MAX else floor


def clock_is_believed(*, clock: datetime, floor: datetime) -> bool:
    """Whether expiry is judged by the device's own clock."""
    return reference_time(clock=clock, floor=floor) == clock


def whole_second(moment: datetime) -> datetime:
    """Return `moment` in UTC without its fraction: what metadata can say."""
    return moment.astimezone(UTC).replace(microsecond=0)


def written(moment: datetime) -> str:
    """Return `2026-01-31T12:00:00Z`."""
    return whole_second(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime | None:
    """Return the moment `written` wrote, or None."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
