"""balena's API (v7, OData), as it publishes it: releases, and devices and fleets pinned to them.

A release there is what `balena push` built: our runtime image with the model's settings, or with the model in it. A
stage pins its devices to the release. That needs a fleet which itself is pinned: in one that tracks the latest release
every device would take the new one at once, and unpinning would not bring the old one back. When every device has it,
the fleet is pinned to it and the devices follow their fleet again. Taking back is unpinning.

balena reports which release a device runs and nothing like a failed update, so silence is what fails a stage here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from drupelet.core.errors import NotFound
from drupelet.drivers.errors import ServiceRefused, ServiceSilent
from drupelet.drivers.http import Http
from drupelet.drivers.port import Answer

API = "/v7"
BATCH = 50
"""Devices named in one address, which servers keep below 8 KB."""


class Balena:
    """Implements `Service` for one fleet, named by its slug (`org/fleet`). An artifact is a version or a commit."""

    name = "balena"
    takes_back = True

    def __init__(self, http: Http, *, fleet: str) -> None:
        self._http, self._slug = http, fleet
        self._fleet: dict[str, Any] | None = None

    def check(self, artifact: str) -> None:
        """Raise `NotFound` unless the fleet has such a release, `ServiceRefused` if the fleet tracks the latest."""
        fleet = self._find_fleet()
        if fleet.get("should_track_latest_release"):
            what = f"fleet {self._slug} tracks its latest release, so every device takes a new one at once"
            raise ServiceRefused(
                what, where=self._http.base, fix=f"pin it first: balena fleet pin {self._slug} RELEASE"
            )
        self._release(artifact)

    def devices(self, group: str) -> tuple[str, ...]:
        """Return the fleet's devices; those that are pinned to a release of their own are left alone."""
        del group  # the fleet is the group
        select = f"belongs_to__application eq {int(self._find_fleet()['id'])} and is_pinned_on__release eq null"
        rows = self._rows(f"device?$filter={_filter(select)}&$select=uuid")
        return tuple(sorted(str(row["uuid"]) for row in rows))

    def deploy(self, artifact: str, devices: tuple[str, ...], *, name: str) -> str:
        """Pin the devices; the deployment's id is the release's."""
        del name
        release = self._release(artifact)
        self._pin(devices, release)
        return str(release)

    def answers(self, deployment: str, devices: tuple[str, ...]) -> dict[str, Answer]:
        """Return whether each device runs the release it is pinned to."""
        found: dict[str, Answer] = {}
        for batch in _batches(devices):
            path = f"device?$filter={_filter(_one_of(batch))}&$select=uuid,is_running__release"
            for row in self._rows(path):
                runs = _id_of(row.get("is_running__release"))
                found[str(row["uuid"])] = Answer.DONE if runs == int(deployment) else Answer.PENDING
        return found

    def stop(self, deployment: str) -> None:
        """A pin is all there is; `take_back` removes it."""

    def take_back(self, deployment: str, devices: tuple[str, ...]) -> None:
        """Unpin: the devices follow their fleet, which is pinned to what they had."""
        del deployment
        self._pin(devices, None)

    def finish(self, artifact: str, devices: tuple[str, ...]) -> None:
        """Pin the fleet to the release, then let the devices follow it again."""
        fleet = int(self._find_fleet()["id"])
        body = {"should_be_running__release": self._release(artifact)}
        self._http.json("PATCH", f"{API}/application({fleet})", body)
        self._pin(devices, None)

    def _pin(self, devices: tuple[str, ...], release: int | None) -> None:
        for batch in _batches(devices):
            path = f"{API}/device?$filter={_filter(_one_of(batch))}"
            self._http.json("PATCH", path, {"is_pinned_on__release": release})

    def _find_fleet(self) -> dict[str, Any]:
        if self._fleet is None:
            select = "$select=id,slug,should_track_latest_release,should_be_running__release"
            rows = self._rows(f"application?$filter={_filter(f'slug eq {_quoted(self._slug)}')}&{select}")
            if not rows:
                raise NotFound(f"there is no fleet {self._slug!r}", where=self._http.base, fix="write it org/fleet")
            self._fleet = rows[0]
        return self._fleet

    def _release(self, artifact: str) -> int:
        named = f"(commit eq {_quoted(artifact)} or raw_version eq {_quoted(artifact)})"
        select = f"belongs_to__application eq {int(self._find_fleet()['id'])} and status eq 'success' and {named}"
        rows = self._rows(f"release?$filter={_filter(select)}&$select=id")
        if not rows:
            what = f"fleet {self._slug} has no finished release {artifact!r}"
            raise NotFound(what, where=self._http.base, fix="push it first, and name its version or commit")
        return int(rows[0]["id"])

    def _rows(self, path: str) -> list[dict[str, Any]]:
        answer, _ = self._http.json("GET", f"{API}/{path}")
        rows = answer.get("d") if isinstance(answer, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ServiceSilent("the answer is no OData list: is this balena?", where=self._http.base)
        return rows


def _id_of(reference: object) -> int | None:
    """Return the id of a deferred reference, `{"__id": 7}`, or of a plain number; None for nothing."""
    value = reference.get("__id") if isinstance(reference, dict) else reference
    return value if isinstance(value, int) else None


def _batches(devices: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [devices[at : at + BATCH] for at in range(0, len(devices), BATCH)]


def _one_of(devices: tuple[str, ...]) -> str:
    return f"uuid in ({','.join(map(_quoted, devices))})"


def _quoted(text: str) -> str:
    """Return an OData string."""
    return "'" + text.replace("'", "''") + "'"


def _filter(text: str) -> str:
    return quote(text, safe="")
