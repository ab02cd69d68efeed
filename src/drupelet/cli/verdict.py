"""Waiting for a rollout's verdict: what a pipeline's last step does, and nothing in it hurries or decides.

The rollout lives on the server; this only asks. So a server that restarts, a network that breaks and a job that is
cancelled change nothing about the rollout, and whoever waits again learns the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from drupelet.core.errors import NotFound, Refused, Unavailable

EVERY_S = 2.0
"""Between two questions. A stage takes minutes at least; a question costs the server about a millisecond."""
SEARCHED_MAX = 1000
"""Rollouts, the newest first, among which one of a named release is looked for."""


class Asks(Protocol):
    """The part of the fleet's API that waiting needs."""

    def get(self, path: str, **query: object) -> Any:
        """Return what is at `path`."""
        ...

    def pages(self, path: str, *, key: str, limit: int = 1000, **query: object) -> list[Any]:
        """Return the items of a paged list."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait and how: the clock (seconds, monotonic) and sleep are arguments."""

    timeout_s: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    every_s: float = EVERY_S


def newest_of(api: Asks, release: str) -> int:
    """Return the number of the newest rollout of a release (`kiosk/1.2`), or raise `NotFound`."""
    for view in api.pages("/rollouts", key="before", limit=SEARCHED_MAX):
        if view["release"] == release:
            return int(view["id"])
    raise NotFound(f"no rollout of {release} was ever started", fix=f"drupelet rollout start {release}")


def await_verdict(api: Asks, number: int, *, patience: Patience, tell: Callable[[dict[str, Any]], None]) -> None:
    """Return when rollout `number` has completed; call `tell` with its view whenever there is news.

    Raises `Refused` with the verdict's words when it ended any other way, and `Unavailable` when the time is up. A
    server that does not answer is asked again until then, but for the first question: a wrong address is no outage.
    """
    began = patience.clock()
    view: dict[str, Any] | None = None
    said, outage = "", ""
    while True:
        try:
            view = api.get(f"/rollouts/{number}")["rollout"]
            outage = ""
        except Unavailable as error:
            if view is None:
                raise
            outage = error.what
        news = outage or progress(view)
        if news != said:
            tell({**view, "outage": outage})
            said = news
        if view["ended"]:
            return _conclude(view, number)
        if patience.clock() - began >= patience.timeout_s:
            raise Unavailable(
                f"no verdict after {patience.timeout_s:.0f} s: {said}",
                where=f"rollout {number}",
                fix=f"it goes on by itself; wait again with: drupelet rollout wait {number}",
            )
        patience.sleep(patience.every_s)


def _conclude(view: dict[str, Any], number: int) -> None:
    if view["state"] != "completed":
        raise Refused(f"{view['release']} ended {view['state']}: {view['reason']}", where=f"rollout {number}")


def progress(view: dict[str, Any]) -> str:
    """Return where a rollout stands, in a line: state, stage, reason, what it waits for."""
    waits = f"; waits for {view['waits_for']}" if view["waits_for"] else ""
    return f"{view['state']}, stage {view['stage'] + 1} of {len(view['stages'])}: {view['reason']}{waits}"


def findings(view: dict[str, Any]) -> list[str]:
    """Return the numbers that the latest verdict rests on, a sentence each."""
    return [str(finding["says"]) for finding in (view["verdict"] or {}).get("findings", ())]
