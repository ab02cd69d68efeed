"""Mender's management API, as its deployments and inventory services publish it (v1; lists of deployments: v2).

Mender's own phases are a feature of its paid plans and go by the clock; here each stage is a deployment to a list of
devices, which every plan has, and the next begins when this one's devices have answered. A device whose installation
fails has rolled back by itself, as our update module does. Devices that installed it keep it, unless `previous` names
the artifact to give them back.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from drupelet.core.errors import Conflict, NotFound
from drupelet.drivers.errors import ServiceRefused, ServiceSilent
from drupelet.drivers.http import Http
from drupelet.drivers.port import DEVICES_MAX, Answer

DEPLOYMENTS = "/api/management/v1/deployments"
DEPLOYMENTS_V2 = "/api/management/v2/deployments"
INVENTORY = "/api/management/v1/inventory"
PAGE = 500

_ANSWERS = {
    "success": Answer.DONE,
    "already-installed": Answer.DONE,
    "failure": Answer.FAILED,
    "aborted": Answer.FAILED,
    # Mender counts a device for which nothing fits as finished; it has not got the release, so it did not succeed.
    "noartifact": Answer.FAILED,
    "decommissioned": Answer.FAILED,
}


class Mender:
    """Implements `Service`."""

    name = "mender"

    def __init__(self, http: Http, *, previous: str = "") -> None:
        self._http, self._previous = http, previous
        self.takes_back = bool(previous)

    def check(self, artifact: str) -> None:
        """Raise `NotFound` unless there is an artifact of this name (and of the one to give back)."""
        for name in filter(None, (artifact, self._previous)):
            found, _ = self._http.json(
                "GET", f"{DEPLOYMENTS}/artifacts/list?name={quote(name, safe='')}&per_page={PAGE}"
            )
            if not any(one.get("name") == name for one in _rows(found, self._http)):
                raise NotFound(f"Mender has no artifact {name!r}", where=self._http.base, fix="give --artifact FILE")

    def upload(self, file: Path) -> None:
        """Put an artifact there; one that is there already stays, since artifacts do not change."""
        try:
            self._http.upload(f"{DEPLOYMENTS}/artifacts", field="artifact", file=file)
        except Conflict:
            return

    def devices(self, group: str) -> tuple[str, ...]:
        """Return the devices of a static group, or all accepted ones."""
        path = f"{INVENTORY}/groups/{quote(group, safe='')}/devices" if group else f"{INVENTORY}/devices"
        found: list[str] = []
        for page in range(1, DEVICES_MAX // PAGE + 1):
            rows, _ = self._http.json("GET", f"{path}?page={page}&per_page={PAGE}")
            if not isinstance(rows, list):
                raise ServiceSilent("the answer is no list of devices: is this Mender?", where=self._http.base)
            found += [str(row["id"]) if isinstance(row, dict) else str(row) for row in rows]
            if len(rows) < PAGE:
                break
        return tuple(sorted(set(found)))

    def deploy(self, artifact: str, devices: tuple[str, ...], *, name: str) -> str:
        """Create a deployment for these devices, unless there is one of this name."""
        known, _ = self._http.json("GET", f"{DEPLOYMENTS_V2}/deployments?name={quote(name, safe='')}&per_page=20")
        for one in _rows(known, self._http):
            if one.get("name") == name and one.get("artifact_name") == artifact:
                return str(one["id"])
        body = {"name": name, "artifact_name": artifact, "devices": list(devices)}
        _, headers = self._http.json("POST", f"{DEPLOYMENTS}/deployments", body)
        location = headers.get("Location", "")
        if not location:
            raise ServiceSilent("no Location in the answer: is this Mender?", where=self._http.base)
        return location.rstrip("/").rpartition("/")[2]

    def answers(self, deployment: str, devices: tuple[str, ...]) -> dict[str, Answer]:
        """Return each device's status; Mender lists a device once it has asked for updates."""
        found: dict[str, Answer] = {}
        for page in range(1, len(devices) // PAGE + 2):
            path = f"{DEPLOYMENTS}/deployments/{quote(deployment, safe='')}/devices/list?page={page}&per_page={PAGE}"
            rows = _rows(self._http.json("GET", path)[0], self._http)
            for row in rows:
                found[str(row.get("id"))] = _ANSWERS.get(str(row.get("status")), Answer.PENDING)
            if len(rows) < PAGE:
                break
        return found

    def stop(self, deployment: str) -> None:
        """Abort a deployment; Mender refuses this of one that is finished, where nothing is left to stop."""
        try:
            self._http.json(
                "PUT", f"{DEPLOYMENTS}/deployments/{quote(deployment, safe='')}/status", {"status": "aborted"}
            )
        except (ServiceRefused, Conflict):
            return

    def take_back(self, deployment: str, devices: tuple[str, ...]) -> None:
        """Deploy the previous artifact to the devices that have this one."""
        self.deploy(self._previous, devices, name=f"back from {deployment}")

    def finish(self, artifact: str, devices: tuple[str, ...]) -> None:
        """Mender has no default artifact of a group: nothing is to be done."""


def _rows(value: object, http: Http) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ServiceSilent("the answer is no list of objects: is this Mender?", where=http.base)
    return value
