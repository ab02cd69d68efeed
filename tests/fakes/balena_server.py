"""A stand-in for balena's API: fleets, releases and devices, with just the OData that pinning needs, in memory."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.fakes.json_server import Answer, JsonServer

FLEET = 41


class BalenaServer(JsonServer):
    """One fleet. Devices run what they should when the test lets them."""

    def __init__(self, slug: str, devices: list[str], releases: dict[str, int], *, runs: int) -> None:
        self.fleet: dict[str, Any] = {
            "id": FLEET,
            "slug": slug,
            "should_track_latest_release": False,
            "should_be_running__release": {"__id": runs},
        }
        self.releases = releases
        self.pins: dict[str, int | None] = dict.fromkeys(devices)
        self.running = dict.fromkeys(devices, runs)
        super().__init__()

    def target(self, device: str) -> int:
        """What the device should run: its pin, else its fleet's."""
        pin = self.pins[device]
        return pin if pin is not None else int(self.fleet["should_be_running__release"]["__id"])

    def report(self, device: str) -> None:
        """The device has updated."""
        self.running[device] = self.target(device)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> Answer:
        asked = query.get("$filter", "")
        if path == "/v7/application" and method == "GET":
            found = [self.fleet] if asked == f"slug eq '{self.fleet['slug']}'" else []
            return 200, {"d": found}, {}
        if path == f"/v7/application({FLEET})" and method == "PATCH":
            self.fleet["should_be_running__release"] = {"__id": json.loads(body)["should_be_running__release"]}
            return 200, None, {}
        if path == "/v7/release":
            named = re.search(r"commit eq '([^']*)' or raw_version eq '\1'", asked)
            known = self.releases.get(named[1]) if named and f"eq {FLEET} " in asked else None
            return 200, {"d": [{"id": known}] if known is not None else []}, {}
        if path == "/v7/device":
            return self._devices(method, asked, body)
        return 404, "Not Found", {}

    def _devices(self, method: str, asked: str, body: bytes) -> Answer:
        if match := re.fullmatch(r"uuid in \((.*)\)", asked):
            named = [uuid.strip("'") for uuid in match[1].split(",")]
        elif asked == f"belongs_to__application eq {FLEET} and is_pinned_on__release eq null":
            named = [uuid for uuid, pin in self.pins.items() if pin is None]
        else:
            return 400, "Malformed filter", {}
        if method == "PATCH":
            for uuid in named:
                self.pins[uuid] = json.loads(body)["is_pinned_on__release"]
            return 200, None, {}
        return 200, {"d": [{"uuid": u, "is_running__release": {"__id": self.running[u]}} for u in named]}, {}
