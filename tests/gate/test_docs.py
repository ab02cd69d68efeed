"""docs/gate.md is held to the code."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from drupelet.gate import GatePolicy, Kind, Metric, MetricRule

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text()


def test_the_policy_shown_is_the_default_in_full() -> None:
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    document = json.loads(shown.group(1))
    assert document == GatePolicy().document()
    assert GatePolicy.parse(document) == GatePolicy()


@pytest.mark.parametrize(
    "name",
    [
        *(field.name for field in dataclasses.fields(GatePolicy) if field.name != "metrics"),
        *(f"metrics.*.{field.name}" for field in dataclasses.fields(MetricRule) if field.name != "metric"),
        *(metric.value for metric in Metric),
    ],
)
def test_every_field_and_metric_is_explained(name: str) -> None:
    assert re.search(rf"^\|[^|]*`{re.escape(name)}`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_verdict_is_explained(kind: Kind) -> None:
    assert f"| **{kind.value.upper()}** |" in PAGE
