"""Policies: the documented example, what is refused, and that a policy survives being shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from drupelet.core.errors import BadInput
from drupelet.core.states import Mode
from drupelet.fleet.policy import RolloutPolicy, policy_of, policy_of_builtins
from drupelet.fleet.showing import policy as shown

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats" / "policy.md"


def test_the_documented_policy_is_the_default() -> None:
    found = re.search(r"^```toml\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    policy = policy_of_builtins(tomllib.loads(found[1]))
    default = RolloutPolicy()
    assert (policy.crossover, policy.probation_ms, policy.mode) == (
        default.crossover,
        default.probation_ms,
        Mode.CANARY,
    )
    assert policy.gate_policy().total_alpha == default.gate_policy().total_alpha


def test_what_is_shown_can_be_read_again() -> None:
    document = shown(RolloutPolicy())
    assert policy_of_builtins(document).gate_policy() == RolloutPolicy().gate_policy()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"desing": "none"}, "desing"),
        ({"design": "guess"}, "guess"),
        ({"trial_failures_max": -1}, "trial_failures_max"),
        ({"crossover": {"block_ms": 1000, "discard_ms": 1000}}, "discard_ms"),
        ({"completed_share": 0}, "completed_share"),
        ({"gate": {"nonsense": 1}}, "nonsense"),
        ({"gate": {"at_deadline": "pass"}}, "time alone proves nothing"),
        ({"gate": {"total_alpha": 0.00001}}, "more than total_alpha"),
        ({"gate": {"design": "crossover"}}, "at the top"),
    ],
)
def test_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as error:
        policy_of_builtins(document)
    assert says in error.value.line()


def test_too_large() -> None:
    with pytest.raises(BadInput, match="bytes"):
        policy_of(b" " * (RolloutPolicy.BYTES_MAX + 1))
