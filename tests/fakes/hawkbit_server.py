"""A stand-in for Eclipse hawkBit: the part of its management API that rollouts need, as published, in memory."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from tests.fakes.json_server import Answer, JsonServer, form_file

_REST = "/rest/v1"


class HawkbitServer(JsonServer):
    """Targets with tags, distribution sets, rollouts. A new rollout is `creating` for one look."""

    authorization: ClassVar[str] = "Basic YWRtaW46c2VjcmV0"  # admin:secret

    def __init__(self, tags: dict[str, list[str]], sets: set[tuple[str, str]]) -> None:
        self.tags = tags
        self.sets = {key: number for number, key in enumerate(sorted(sets), start=1)}
        self.modules: list[dict[str, Any]] = []
        self.uploads: list[bytes] = []
        self.rollouts: dict[int, dict[str, Any]] = {}
        self.has: dict[str, str] = {}
        self.status: dict[str, str] = {}
        self.assigned: dict[str, int] = {}
        super().__init__()

    def report(self, device: str, status: str) -> None:
        """The target's update status: `in_sync` or `error`."""
        self.status[device] = status
        if status == "in_sync":
            name, version = next(key for key, number in self.sets.items() if number == self.assigned[device])
            self.has[device] = f"{name}:{version}"

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> Answer:
        if path == f"{_REST}/targets":
            return 200, _page([{"controllerId": d} for d in self._targets(query.get("q", ""))], query), {}
        if path == f"{_REST}/distributionsets":
            return self._sets(method, query, body)
        if path == f"{_REST}/softwaremodules":
            self.modules = json.loads(body)
            return 201, [{"id": 9, **self.modules[0]}], {}
        if path == f"{_REST}/softwaremodules/9/artifacts":
            self.uploads.append(form_file(body, headers, "file"))
            return 201, {"id": 3}, {}
        if match := re.fullmatch(rf"{_REST}/distributionsets/(\d+)/assignedTargets", path):
            for one in json.loads(body):
                self._assign(one["id"], int(match[1]))
            return 200, {"assigned": len(json.loads(body))}, {}
        if path == f"{_REST}/rollouts" and method == "POST":
            return self._create(json.loads(body))
        if path == f"{_REST}/rollouts":
            wanted = re.fullmatch(r"name=='(.*)'", query["q"])
            rows = [one for one in self.rollouts.values() if wanted and one["name"] == wanted[1]]
            return 200, {"content": [_view(one) for one in rows], "total": len(rows), "size": len(rows)}, {}
        return self._rollout(path, query)

    def _rollout(self, path: str, query: dict[str, str]) -> Answer:
        match = re.fullmatch(rf"{_REST}/rollouts/(\d+)(/.*)?", path)
        one = self.rollouts.get(int(match[1])) if match else None
        if one is None or match is None:
            return 404, {"message": "not found", "errorCode": "hawkbit.server.error.repo.entityNotExists"}, {}
        what = match[2] or ""
        if what == "":
            one["status"] = "ready" if one["status"] == "creating" else one["status"]
            return 200, _view(one), {}
        if what == "/deploygroups":
            return 200, _page([{"id": 1, "name": "group-1"}], query), {}
        if what == "/deploygroups/1/targets":
            rows = [{"controllerId": d, "updateStatus": self.status.get(d, "pending")} for d in one["targets"]]
            return 200, _page(rows if one["status"] == "running" else [], query), {}
        needed, after = {"/start": ("ready", "running"), "/pause": ("running", "paused")}.get(what, ("", ""))
        if one["status"] != needed:
            return 400, {"message": f"rollout is {one['status']}"}, {}
        one["status"] = after
        if what == "/start":
            for device in one["targets"]:
                self._assign(device, one["distributionSetId"])
        return 200, None, {}

    def _assign(self, device: str, number: int) -> None:
        self.assigned[device] = number
        self.status[device] = "pending"

    def _sets(self, method: str, query: dict[str, str], body: bytes) -> Answer:
        if method == "POST":
            for one in json.loads(body):
                self.sets[(one["name"], one["version"])] = len(self.sets) + 1
            return 201, [{"id": len(self.sets)}], {}
        wanted = re.fullmatch(r"name=='(.*)';version=='(.*)'", query["q"])
        rows = [
            {"id": number, "name": name, "version": version}
            for (name, version), number in self.sets.items()
            if wanted and (name, version) == (wanted[1], wanted[2])
        ]
        return 200, {"content": rows, "total": len(rows), "size": len(rows)}, {}

    def _create(self, wanted: dict[str, Any]) -> Answer:
        targets = self._targets(wanted["targetFilterQuery"])
        if wanted["distributionSetId"] not in self.sets.values() or not targets:
            return 400, {"message": "The given rollout is not valid"}, {}
        number = len(self.rollouts) + 1
        self.rollouts[number] = {"id": number, "status": "creating", "targets": targets, **wanted}
        return 201, _view(self.rollouts[number]), {}

    def _targets(self, query: str) -> list[str]:
        every = sorted({d for devices in self.tags.values() for d in devices})
        if not query:
            return every
        if match := re.fullmatch(r"tag==(\S+)", query):
            return self.tags.get(match[1], [])
        if match := re.fullmatch(r"controllerId=in=\((.*)\)", query):
            return [device.strip("'") for device in match[1].split(",")]
        return []


def _view(one: dict[str, Any]) -> dict[str, Any]:
    return {key: one[key] for key in ("id", "name", "status", "distributionSetId", "targetFilterQuery")}


def _page(rows: list[Any], query: dict[str, str]) -> dict[str, Any]:
    begin, limit = int(query["offset"]), int(query["limit"])
    return {"content": rows[begin : begin + limit], "total": len(rows), "size": len(rows[begin : begin + limit])}
