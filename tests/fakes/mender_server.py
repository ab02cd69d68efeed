"""A stand-in for Mender's server: its management API for deployments and inventory, as published, in memory.

It is no Mender: devices answer only when the test says so, and nothing is stored.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.fakes.json_server import Answer, JsonServer, form_file

_V1, _V2 = "/api/management/v1/deployments", "/api/management/v2/deployments"
_INVENTORY = "/api/management/v1/inventory"


class MenderServer(JsonServer):
    """Groups, artifacts and deployments."""

    def __init__(self, groups: dict[str, list[str]], artifacts: set[str]) -> None:
        self.groups, self.artifacts = groups, artifacts
        self.uploads: list[bytes] = []
        self.deployments: dict[str, dict[str, Any]] = {}
        self.has: dict[str, str] = {}
        super().__init__()

    def report(self, device: str, status: str) -> None:
        """The device says how its newest deployment went."""
        for one in reversed(self.deployments.values()):
            if device in one["devices"] and one["status"] != "finished":
                one["statuses"][device] = status
                if status == "success":
                    self.has[device] = one["artifact_name"]
                if len(one["statuses"]) == len(one["devices"]) and "pending" not in one["statuses"].values():
                    one["status"] = "finished"
                return

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> Answer:
        if path == f"{_V1}/artifacts" and method == "POST":
            self.uploads.append(form_file(body, headers, "artifact"))
            return 201, None, {"Location": "./management/v1/deployments/artifacts/1"}
        if path == f"{_V1}/artifacts/list":
            return 200, _page([{"id": n, "name": n} for n in sorted(self.artifacts) if n == query["name"]], query), {}
        if match := re.fullmatch(rf"{_INVENTORY}/groups/([^/]+)/devices", path):
            if match[1] not in self.groups:
                return 404, {"error": "group not found"}, {}
            return 200, _page(self.groups[match[1]], query), {}
        if path == f"{_INVENTORY}/devices":
            return 200, _page([{"id": d} for d in sorted({d for g in self.groups.values() for d in g})], query), {}
        if path == f"{_V2}/deployments":
            return 200, [self._view(one) for one in self.deployments.values() if one["name"] == query["name"]], {}
        if path == f"{_V1}/deployments" and method == "POST":
            return self._create(json.loads(body))
        if match := re.fullmatch(rf"{_V1}/deployments/([^/]+)/(devices/list|status)", path):
            one = self.deployments.get(match[1])
            if one is None:
                return 404, {"error": "deployment not found"}, {}
            return self._abort(one, json.loads(body)) if method == "PUT" else (200, _page(_rows(one), query), {})
        return 404, {"error": f"no such endpoint: {method} {path}"}, {}

    def _create(self, wanted: dict[str, Any]) -> Answer:
        if not {"name", "artifact_name", "devices"} <= wanted.keys() or not wanted["devices"]:
            return 400, {"error": "Invalid deployment"}, {}
        if wanted["artifact_name"] not in self.artifacts:
            return 422, {"error": "No artifact for the deployment"}, {}
        key = f"d-{len(self.deployments) + 1}"
        self.deployments[key] = {"id": key, "status": "pending", "statuses": {}, **wanted}
        return 201, None, {"Location": f"./management/v1/deployments/deployments/{key}"}

    def _abort(self, one: dict[str, Any], wanted: dict[str, Any]) -> Answer:
        if wanted != {"status": "aborted"}:
            return 400, {"error": "only aborted can be set"}, {}
        if one["status"] == "finished":
            return 422, {"error": "Deployment already finished"}, {}
        one["status"] = "finished"
        for device in one["devices"]:
            one["statuses"].setdefault(device, "aborted")
        return 204, None, {}

    def _view(self, one: dict[str, Any]) -> dict[str, Any]:
        kept = {key: one[key] for key in ("id", "name", "artifact_name", "status")}
        return {**kept, "created": "2026-02-11T13:03:17Z", "device_count": len(one["devices"])}


def _rows(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Mender lists devices as they are assigned: one that never asked is not there."""
    return [{"id": d, "status": s, "log": False} for d, s in one["statuses"].items()]


def _page(rows: list[Any], query: dict[str, str]) -> list[Any]:
    size = int(query["per_page"])
    begin = (int(query.get("page", 1)) - 1) * size
    return rows[begin : begin + size]
