"""A recipe says what it means, and a slip of the pen is found with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drupelet.forge.errors import RecipeBad
from drupelet.forge.recipe import load_recipe, parse_recipe
from drupelet.forge.report import Report
from drupelet.wire.codec import decode
from tests.forge.conftest import KIOSK

GOOD = """\
format = "drupelet.recipe/1"
family = "kiosk"
model = "kiosk"
context_tokens = 128

[budgets]
load_ms_max = 1000

[quality]
kl_mean_max = 0.01

[[variants]]
name = "q4"
quantization = "q4_0"
quality = { top1_agreement_min = 0.8 }

[[variants]]
name = "q8"
quantization = "q8_0"

[[canonical_prompts]]
id = "hours"
prompt = "When do you open?"
expect = [{ kind = "contains", value = "9" }]

[evaluation]
prompts = ["Where is the milk?"]
"""


def test_a_variants_own_budget_replaces_the_recipes() -> None:
    recipe = parse_recipe(GOOD.encode())
    q4, q8 = recipe.variants
    assert recipe.quality_of(q4).top1_agreement_min == 0.8
    assert recipe.quality_of(q8).kl_mean_max == 0.01
    assert recipe.canonical_prompts[0].tokens_max == 64


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("load_ms_max", "load_ms_mx", 7, "unknown key 'load_ms_mx' in budgets; did you mean 'load_ms_max'?"),
        ("quantization =", "quantisation =", 14, "did you mean 'quantization'?"),
        ("top1_agreement_min", "top1_min", 15, "unknown key 'top1_min' in variants[1].quality"),
        ("[evaluation]", "[evaluations]", 26, "did you mean 'evaluation'?"),
        ('kind = "contains"', 'kind = "containts"', 24, "Invalid enum value 'containts'"),
        ('kind = "contains", value = "9"', 'kind = "regex", value = "("', 0, "not a regular expression"),
        ("context_tokens = 128", 'context_tokens = "128"', 4, "Expected `int`, got `str`"),
        ("context_tokens = 128", "context_tokens = 1", 4, "Expected `int` >= 16"),
        ('quantization = "q8_0"', 'quantization = "q5_k"', 19, "use one of f16, bf16, f32, q8_0"),
        ('name = "q8"', 'name = "q4"', 0, "two variants are called 'q4'"),
        ('prompts = ["Where is the milk?"]', "", 0, "neither prompts nor texts"),
        ('family = "kiosk"', 'family = "../etc"', 2, "family: use lower-case letters"),
        ("drupelet.recipe/1", "drupelet.recipe/9", 1, "Invalid enum value"),
        ("[budgets]", "[budgets", 6, "not TOML"),
        ('model = "kiosk"\n', "", 0, "missing required field `model`"),
    ],
)
def test_a_slip_is_found(old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeBad) as caught:
        parse_recipe(GOOD.replace(old, new, 1).encode(), where="recipe.toml")
    assert words in caught.value.line()
    if line and "TOML" not in words:
        assert caught.value.where == f"recipe.toml:{line}"


@pytest.mark.parametrize("data", [b"\xff", b"a" * (2 << 20), b"a = " + b"[" * 5000])
def test_hardly_a_recipe(data: bytes) -> None:
    with pytest.raises(RecipeBad):
        parse_recipe(data)


def test_the_kiosks_recipe_is_good() -> None:
    recipe, digest = load_recipe(KIOSK / "recipe.toml")
    assert [variant.quantization for variant in recipe.variants] == ["q8_0", "q4_0", "f16"]
    asked = {prompt.prompt for prompt in recipe.canonical_prompts}
    assert not asked & set(recipe.evaluation.prompts), "what decides is not what is measured"
    assert digest.text.startswith("sha256:")


def test_the_documented_recipe_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats" / "checkpoint.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert parse_recipe(example.encode()).family == "kiosk"


def test_the_documented_report_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats" / "checkpoint.md").read_text()
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    report = decode(Report, example.encode())
    assert report.findings == tuple(f"{one.name}: {finding}" for one in report.variants for finding in one.findings)
