"""The deployment manifest that pipelines for Mender already write, taken as it is.

    {"artifact_name": "edge-runtime-20260115", "type": "mender", "device_group": "canary-1pct",
     "artifact_uri": "https://artifacts.example.com/edge-runtime-20260115.tar.gz",
     "rollout": {"strategy": "percent", "start": 1, "steps": [1, 25, 100]}}

`start` is the first step; saying it twice must say the same. `artifact_uri` tells people where the file came from: the
service has it, or it is given as a file; nothing is fetched from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from drupelet.drivers.errors import BadDeployment
from drupelet.drivers.port import Plan, Stage
from drupelet.wire.fields import in_words

BYTES_MAX = 64 * 1024
Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Rollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far, in steps."""

    strategy: Literal["percent", "count"] = "percent"
    start: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    steps: Annotated[tuple[Annotated[int, Meta(ge=1, le=100_000)], ...], Meta(min_length=1, max_length=16)]


class Deployment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to give to whom."""

    artifact_name: Text
    type: Literal["drupelet", "mender", "balena", "hawkbit"] = "mender"
    device_group: Annotated[str, Meta(max_length=200)] = ""
    artifact_uri: Annotated[str, Meta(max_length=2048)] = ""
    rollout: Rollout


def read(path: Path) -> Deployment:
    """Return the manifest in a file. Raises `BadDeployment` saying what is wrong with it."""
    where = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise BadDeployment(f"cannot be read: {error.strerror}", where=where) from error
    if len(data) > BYTES_MAX:
        raise BadDeployment(f"larger than the {BYTES_MAX} bytes allowed", where=where)
    try:
        found = msgspec.convert(json.loads(data), Deployment)
    except msgspec.ValidationError as error:
        raise BadDeployment(in_words(error), where=where) from error
    except (ValueError, RecursionError) as error:
        raise BadDeployment("not JSON", where=where) from error
    if found.rollout.start is not None and found.rollout.start != found.rollout.steps[0]:
        what = f"rollout.start is {found.rollout.start} and the first of rollout.steps is {found.rollout.steps[0]}"
        raise BadDeployment(what, where=where, fix="leave start out")
    return found


def plan(deployment: Deployment, *, name: str = "") -> Plan:
    """Return the plan that a manifest asks for; it carries the artifact's name unless another is given."""
    mark = "%" if deployment.rollout.strategy == "percent" else ""
    return Plan(
        name=name or deployment.artifact_name,
        artifact=deployment.artifact_name,
        group=deployment.device_group,
        stages=tuple(Stage.parse(f"{step}{mark}") for step in deployment.rollout.steps),
    )
