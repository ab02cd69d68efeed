"""JSON Schemas of the files people write, made from the types that read them: for editors and other linters."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

import msgspec

from drupelet.ci.kinds import KINDS, Kind
from drupelet.core.errors import BadInput
from drupelet.gate.policy import GatePolicy, MetricRule
from drupelet.gate.scores import Metric

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """Return the schema of a kind of file, or raise `BadInput` naming the kinds."""
    kind = KINDS.get(name)
    if kind is None:
        raise BadInput(f"there is no schema for {name[:40]!r}", fix=f"one of {', '.join(KINDS)}")
    made = msgspec.json.schema(kind.type_(), schema_hook=_text_for_paths)
    if not kind.tolerant:
        for table in made["$defs"].values():
            if "properties" in table:
                table["additionalProperties"] = False
    if name == "policy":
        made["$defs"]["RolloutPolicy"]["properties"]["gate"] = _gate()
    return {"$schema": DIALECT, "title": _title(kind), **made}


def _title(kind: Kind) -> str:
    return kind.format or f"{kind.name}.toml"


def _text_for_paths(_kind: type) -> dict[str, Any]:
    """Return how a file writes what JSON has no type for: only paths are such."""
    return {"type": "string"}


def _gate() -> dict[str, Any]:
    """Return the gate's policy, whose file form maps each metric to its rule."""
    defaults = GatePolicy()
    properties: dict[str, Any] = {}
    for item in fields(GatePolicy):
        value = getattr(defaults, item.name)
        if isinstance(value, Enum):
            properties[item.name] = {"enum": [one.value for one in type(value)]}
        elif isinstance(value, int | float):
            properties[item.name] = {"type": "integer" if isinstance(value, int) else "number", "default": value}
    kinds = {"alpha": "number", "margin": "number", "mandatory": "boolean"}
    rule = {
        "type": "object",
        "additionalProperties": False,
        "properties": {item.name: {"type": kinds[item.name]} for item in fields(MetricRule) if item.name in kinds},
    }
    properties["metrics"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {metric.value: rule for metric in Metric},
    }
    del properties["design"]  # it belongs at the top of the policy
    return {"type": "object", "additionalProperties": False, "properties": properties}
