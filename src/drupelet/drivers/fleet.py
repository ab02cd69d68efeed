"""Our own fleet server as a driver: the gate judges, the server draws and drives, this side only looks."""

from __future__ import annotations

from typing import Any

from drupelet.drivers.errors import ServiceSilent
from drupelet.drivers.http import Http
from drupelet.drivers.port import Plan, Seen, State

API = "/api/v1/rollouts"
_STATES = {
    "completed": State.COMPLETED,
    "rolled_back": State.TAKEN_BACK,
    "aborted": State.TAKEN_BACK,
    "paused": State.PAUSED,
}


class Fleet:
    """Implements `Driver` for a rollout of our own. `number` goes on with one that was started before."""

    name = "drupelet"

    def __init__(self, http: Http, plan: Plan, *, number: int = 0) -> None:
        self._http, self._plan = http, plan
        self.number = number or self._start()

    def _start(self) -> int:
        body = {
            "release": self._plan.artifact,
            "selector": self._plan.group,
            "stages": [str(stage) for stage in self._plan.stages],
            "policy": {},
            "seed": self._plan.seed,
        }
        page, _ = self._http.json("POST", API, body)
        return int(_rollout(page, self._http)["id"])

    def step(self) -> Seen:
        """Look; everything due is done by the server."""
        page, _ = self._http.json("GET", f"{API}/{self.number}")
        return _seen(_rollout(page, self._http))

    def abort(self, reason: str) -> Seen:
        """Ask the server to take the release back from every device that has it."""
        page, _ = self._http.json("POST", f"{API}/{self.number}/abort", {"reason": reason})
        return _seen(_rollout(page, self._http))


def _rollout(page: Any, http: Http) -> dict[str, Any]:
    view = page.get("rollout") if isinstance(page, dict) else None
    if not isinstance(view, dict) or not {"id", "state", "stage", "stages", "counts", "reason"} <= view.keys():
        raise ServiceSilent("the answer is no rollout: is this a Drupelet fleet server?", where=http.base)
    return view


def _seen(view: dict[str, Any]) -> Seen:
    counts: dict[str, int] = view["counts"]
    ended = bool(view.get("ended"))
    state = _STATES.get(str(view["state"]), State.TAKEN_BACK if ended else State.RUNNING)
    return Seen(
        state=state,
        stage=int(view["stage"]),
        stages=len(view["stages"]),
        exposed=sum(counts.values()),
        done=int(counts.get("committed", 0)),
        failed=int(counts.get("failed", 0)),
        says=f"{view['state']}: {view['reason']}",
    )
