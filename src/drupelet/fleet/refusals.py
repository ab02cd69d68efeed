"""Which events of a device belong into the audit log: what it refused, and why. Pure."""

from __future__ import annotations

from drupelet.core.states import Reason
from drupelet.wire.device_api import DeviceEvent

DISTRUST = frozenset(
    {
        Reason.UNSIGNED,
        Reason.WRONG_DEVICE,
        Reason.CONDEMNED,
        Reason.REPLAYED,
        Reason.EXPIRED,
        Reason.DIGEST_MISMATCH,
        Reason.TOO_LARGE,
        Reason.TRUNCATED,
        Reason.BAD_METADATA,
    }
)
"""Reasons that somebody who must account for security wants to read, whatever the machine did with them."""


def refusal_of(event: DeviceEvent) -> str | None:
    """Return the refusal in words, or None for an event that is none."""
    if event.event != "refused" and event.reason not in DISTRUST:
        return None
    return ": ".join(part for part in (event.reason.value, event.release, event.detail) if part)
