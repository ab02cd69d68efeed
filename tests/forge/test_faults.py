"""Planted faults are refused and honest variants pass: the quick part of `benchmarks/bench_forge_faults.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.bench_forge_faults import FAULTS_MIN, HONEST_MIN, KIOSK, Suite

from drupelet.forge.recipe import load_recipe
from tests.fakes.faults import FAULTS, HONEST

EVERYWHERE = {
    "rope-base-everywhere": "computes something else than the checkpoint",
    "tokens-off-by-one-everywhere": "tokens: it splits",
    "missing-eos-everywhere": "the file goes on: it does not know the checkpoint's end token",
    "rows-swapped-everywhere": "rows of token_embd.weight are not the checkpoint's",
    "block-zero-everywhere": "rows that no tensor of the checkpoint has",
}
IN_ONE = {
    "noise-adapter": "of its size where Q8_0 is off by",
    "chat-template": "chat template: it makes",
    "truncated-vocabulary": "vocabulary",
}


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    """The kiosk with a few questions instead of dozens."""
    recipe, _ = load_recipe(KIOSK / "recipe.toml")
    plan = msgspec.structs.replace(recipe.evaluation, prompts=recipe.evaluation.prompts[:6])
    with tempfile.TemporaryDirectory(prefix="dfl") as folder:  # short enough for a socket's path
        yield Suite(Path(folder), msgspec.structs.replace(recipe, evaluation=plan, checks=(), groups={}))


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_fault_that_every_file_has_is_caught(suite: Suite, name: str) -> None:
    report = suite.fault(name)
    assert not report.passed
    assert any(EVERYWHERE[name] in finding for finding in report.findings), report.findings


@pytest.mark.parametrize("name", IN_ONE)
def test_a_fault_in_one_variant_is_caught(suite: Suite, name: str) -> None:
    report = suite.fault(name)
    assert any(IN_ONE[name] in finding for finding in report.findings), report.findings
    assert not any(finding.startswith("reference: ") for finding in report.findings)


@pytest.mark.parametrize("name", ["1.2 q4_0", "1.1 bf16"])
def test_an_honest_variant_passes(suite: Suite, name: str) -> None:
    assert suite.honest(name).findings == ()


def test_there_are_as_many_as_promised() -> None:
    assert len(FAULTS) >= FAULTS_MIN
    assert len(HONEST) >= HONEST_MIN
