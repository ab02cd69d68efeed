"""What the director orders one device to do.

An order is the `custom` object of the only target in a device's signed director targets; the target itself names the
release manifest by path, length and SHA-256, which must be those that the image repository vouches for.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from drupelet.core.states import Mode
from drupelet.wire.codec import Message
from drupelet.wire.fields import Count, DigestText, Milliseconds, NameText, ReleaseText, Sentence

CONDEMNED_MAX = 1000
"""Releases condemned at once in one fleet; older ones are made final by revocation and drop out."""


class Crossover(msgspec.Struct, frozen=True, kw_only=True):
    """How a canary alternates between its two releases.

    A pair is two blocks, one of each release, in an order drawn on the device by a fair coin. The first `discard_ms`
    of a block do not count.
    """

    block_ms: Annotated[int, Meta(ge=200, le=86_400_000)] = 300_000
    discard_ms: Milliseconds = 60_000
    pairs_max: Annotated[int, Meta(ge=1, le=10_000)] = 500

    def __post_init__(self) -> None:
        if self.discard_ms >= self.block_ms:
            raise ValueError("discard_ms must be less than block_ms")


class Condemned(msgspec.Struct, frozen=True, kw_only=True):
    """A release no device may take, with the reason in words."""

    release: ReleaseText
    manifest: DigestText
    reason: Sentence = ""


class Order(Message, frozen=True, kw_only=True):
    """One device's order. `serial` only grows for a device; an order with a smaller one is a replay."""

    FORMAT: ClassVar[str] = "drupelet.order/1"
    BYTES_MAX: ClassVar[int] = 512 * 1024

    format: str = "drupelet.order/1"
    device: NameText
    serial: Annotated[int, Meta(ge=1, le=2**53)]
    mode: Mode
    release: ReleaseText
    manifest: DigestText
    variants: Annotated[tuple[NameText, ...], Meta(min_length=1, max_length=32)]
    """Variants this device may take, the preferred first."""
    rollout: Count = 0
    """The rollout's number, 0 where none stands behind the order."""
    reason: Sentence = ""
    crossover: Crossover | None = None
    probation_ms: Milliseconds = 60_000
    """Least time on probation before a local commit (`install`), or before a commit order is obeyed."""
    verdict_ms_max: Milliseconds = 86_400_000
    """A canary that hears no commit order for this long takes the release back by itself: silence never passes."""
    condemned: Annotated[tuple[Condemned, ...], Meta(max_length=CONDEMNED_MAX)] = ()

    def __post_init__(self) -> None:
        if self.mode is Mode.CANARY and self.crossover is None:
            raise ValueError("a canary order needs a crossover")
