"""The ports of this room: what the decisions rest on and what carries them out. Adapters and fakes fit these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from drupelet.engine.spec import ChildSpec, Exit
from drupelet.wire.control import Load


class ChildAddress(Protocol):
    """Where a child answers."""

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        ...


class RunningChild(Protocol):
    """An inference child that is ready; `engine.Child` is the real one."""

    @property
    def address(self) -> ChildAddress:
        """Where it answers."""
        ...

    def rss_bytes(self) -> int:
        """Resident bytes now, 0 once it is gone."""
        ...

    def rss_bytes_peak(self) -> int:
        """The most resident bytes there were, 0 once it is gone."""
        ...

    async def wait(self) -> Exit:
        """Return how it ended, once it has."""
        ...

    async def stop(self) -> Exit:
        """End it."""
        ...


Launch: TypeAlias = Callable[[ChildSpec], Awaitable[RunningChild]]
"""Start a child and return it ready; raises `engine.StartFailed`. Cancelling it leaves no child behind."""

CheckDigest: TypeAlias = Callable[[Load], Awaitable[str]]
"""Return why a load's file is not what was verified, or the empty string."""
