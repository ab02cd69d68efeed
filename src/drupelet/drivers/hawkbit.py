"""Eclipse hawkBit's management API (`/rest/v1`), as it publishes it.

hawkBit has rollouts with groups of its own, whose thresholds count installations only. Each of our stages is such a
rollout with one group, so that the stage's devices are the drawn ones and the next stage waits for our decision; its
own emergency stop stays on (PAUSE as soon as anything fails), for the time in which nobody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from drupelet.core.errors import BadInput, Conflict, NotFound
from drupelet.drivers.errors import ServiceRefused, ServiceSilent
from drupelet.drivers.http import Http
from drupelet.drivers.port import DEVICES_MAX, Answer

REST = "/rest/v1"
PAGE = 500
READY_TRIES_MAX = 60
READY_WAIT_S = 0.5
"""hawkBit fills a new rollout's groups in the background; a stage has at most some thousands of devices."""

_ANSWERS = {"in_sync": Answer.DONE, "error": Answer.FAILED}


class Hawkbit:
    """Implements `Service`. An artifact is a distribution set, written `name:version`."""

    name = "hawkbit"

    def __init__(self, http: Http, *, previous: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        self._http, self._previous, self._sleep = http, previous, sleep
        self.takes_back = bool(previous)

    def check(self, artifact: str) -> None:
        """Raise `NotFound` unless there is such a distribution set (and the one to give back)."""
        for name in filter(None, (artifact, self._previous)):
            self._set(name)

    def upload(self, artifact: str, file: Path) -> None:
        """Make a software module with this file and a distribution set of it, unless there is one."""
        name, version = _name_version(artifact)
        try:
            self._set(artifact)
            return
        except NotFound:
            pass
        module = {"name": name, "version": version, "type": "application", "vendor": "drupelet"}
        made = self._json("POST", f"{REST}/softwaremodules", [module])[0]
        self._http.upload(f"{REST}/softwaremodules/{int(made['id'])}/artifacts", field="file", file=file)
        wanted = {"name": name, "version": version, "type": "app", "modules": [{"id": made["id"]}]}
        self._json("POST", f"{REST}/distributionsets", [wanted])

    def devices(self, group: str) -> tuple[str, ...]:
        """Return the targets that a filter query selects; an empty one selects all."""
        query = f"&q={quote(group, safe='')}" if group else ""
        return tuple(sorted(str(row["controllerId"]) for row in self._pages(f"{REST}/targets?sort=id:ASC{query}")))

    def deploy(self, artifact: str, devices: tuple[str, ...], *, name: str) -> str:
        """Create a rollout of one group for these targets and start it; one of this name goes on."""
        found = self._json("GET", f"{REST}/rollouts?q={quote(f'name=={_quoted(name)}', safe='')}")
        rows = [row for row in found.get("content", ()) if row.get("name") == name]
        rollout = rows[0] if rows else self._create(artifact, devices, name)
        number = int(rollout["id"])
        for _ in range(READY_TRIES_MAX):
            status = str(rollout.get("status"))
            if status == "ready":
                self._http.json("POST", f"{REST}/rollouts/{number}/start")
                return str(number)
            if status not in ("creating", "waiting_for_approval"):
                return str(number)
            if status == "waiting_for_approval":
                what = f"rollout {name!r} waits for approval in hawkBit"
                raise ServiceSilent(what, where=self._http.base, fix="approve it there; this goes on by itself")
            self._sleep(READY_WAIT_S)
            rollout = self._json("GET", f"{REST}/rollouts/{number}")
        raise ServiceSilent(f"hawkBit is still creating rollout {name!r}", where=self._http.base, fix="try again later")

    def _create(self, artifact: str, devices: tuple[str, ...], name: str) -> dict[str, Any]:
        body = {
            "name": name,
            "distributionSetId": self._set(artifact),
            "targetFilterQuery": f"controllerId=in=({','.join(map(_quoted, devices))})",
            "amountGroups": 1,
            "type": "forced",
            "successCondition": {"condition": "THRESHOLD", "expression": "100"},
            "successAction": {"action": "NEXTGROUP", "expression": ""},
            "errorCondition": {"condition": "THRESHOLD", "expression": "1"},
            "errorAction": {"action": "PAUSE", "expression": ""},
        }
        made = self._json("POST", f"{REST}/rollouts", body)
        if not isinstance(made, dict) or "id" not in made:
            raise ServiceSilent("the answer is no rollout: is this hawkBit?", where=self._http.base)
        return made

    def answers(self, deployment: str, devices: tuple[str, ...]) -> dict[str, Answer]:
        """Return each target's update status."""
        groups = self._pages(f"{REST}/rollouts/{int(deployment)}/deploygroups?sort=id:ASC")
        found: dict[str, Answer] = {}
        wanted = frozenset(devices)
        for group in groups:
            path = f"{REST}/rollouts/{int(deployment)}/deploygroups/{int(group['id'])}/targets?sort=id:ASC"
            for row in self._pages(path):
                device = str(row["controllerId"])
                if device in wanted:
                    found[device] = _ANSWERS.get(str(row.get("updateStatus")), Answer.PENDING)
        return found

    def stop(self, deployment: str) -> None:
        """Pause the rollout; hawkBit refuses this of one that does not run, where nothing is left to stop."""
        try:
            self._http.json("POST", f"{REST}/rollouts/{int(deployment)}/pause")
        except (ServiceRefused, Conflict):
            return

    def take_back(self, deployment: str, devices: tuple[str, ...]) -> None:
        """Assign the previous distribution set."""
        del deployment
        body = [{"id": device, "type": "forced"} for device in devices]
        self._json("POST", f"{REST}/distributionsets/{self._set(self._previous)}/assignedTargets", body)

    def finish(self, artifact: str, devices: tuple[str, ...]) -> None:
        """hawkBit gives new targets what their filters say: nothing is to be done."""

    def _set(self, artifact: str) -> int:
        name, version = _name_version(artifact)
        query = quote(f"name=={_quoted(name)};version=={_quoted(version)}", safe="")
        rows = self._json("GET", f"{REST}/distributionsets?q={query}").get("content", ())
        for row in rows:
            if (row.get("name"), row.get("version")) == (name, version):
                return int(row["id"])
        raise NotFound(
            f"hawkBit has no distribution set {artifact!r}", where=self._http.base, fix="give --artifact FILE"
        )

    def _pages(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < DEVICES_MAX:
            page = self._json("GET", f"{path}&limit={PAGE}&offset={len(found)}")
            rows = page.get("content", []) if isinstance(page, dict) else []
            found += rows
            if not rows or len(found) >= int(page.get("total", 0)):
                break
        return found

    def _json(self, method: str, path: str, body: object = None) -> Any:
        answer, _ = self._http.json(method, path, body)
        if not isinstance(answer, dict | list):
            raise ServiceSilent("an empty answer: is this hawkBit?", where=self._http.base)
        return answer


def _name_version(artifact: str) -> tuple[str, str]:
    name, colon, version = artifact.rpartition(":")
    if not colon or not name or not version:
        raise BadInput(f"{artifact[:80]!r} is no distribution set", fix="write name:version, as in kiosk:1.2")
    return name, version


def _quoted(text: str) -> str:
    """Return a value of hawkBit's query language."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
