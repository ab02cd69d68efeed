"""`recipe.toml`: what a family's releases are made of, what a good answer is, and what may not be exceeded.

One recipe serves all versions of a family; the version and the checkpoint are given when a release is built. The types
that reach the device (canonical prompts, budgets, requirements) are the manifest's own. Unknown keys are refused with
the nearest known one, because a misspelt budget would otherwise be no budget. See docs/formats/checkpoint.md.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, family
from drupelet.engine.canonical import check as check_expectation
from drupelet.forge.convert import Wanted
from drupelet.forge.errors import RecipeBad
from drupelet.forge.formats import FORMATS
from drupelet.wire.fields import Label, LabelKey, NameText, NonNegative, Sentence
from drupelet.wire.manifest import Budgets, CanonicalPrompt, Part, Requires, StageAdvice, ThermalProfile

RECIPE_BYTES_MAX = 1 << 20
FORMAT = "drupelet.recipe/1"

Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=8_000)]


class QualityBudget(Part, frozen=True, kw_only=True):
    """How far a variant may be from the f16 reference. KL in nats a token."""

    kl_mean_max: NonNegative = 0.02
    kl_p99_max: NonNegative | None = None
    top1_agreement_min: Share = 0.9


class RecipeVariant(Part, frozen=True, kw_only=True):
    """A variant to make, in the order of preference on a device that could run several."""

    name: NameText
    quantization: str
    file_format: str = "gguf"
    npu_required: bool = False
    quality: QualityBudget | None = None
    """Instead of the recipe's own budget."""

    @property
    def wanted(self) -> Wanted:
        """As the converter takes it."""
        return Wanted(name=typing.cast(Any, self.name), quantization=self.quantization, file_format=self.file_format)


class EvaluationPlan(Part, frozen=True, kw_only=True):
    """On what variants are compared with the reference."""

    prompts: Annotated[tuple[Text, ...], Meta(max_length=2_000)] = ()
    """Questions, put through the chat template and followed by the reference's own answer."""
    texts: Annotated[tuple[Text, ...], Meta(max_length=2_000)] = ()
    """Texts taken as they are."""
    answer_tokens_max: Annotated[int, Meta(ge=1, le=1024)] = 48
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    """More threads than idle cores make small models slower, not faster: they wait for each other."""


class Recipe(Part, frozen=True, kw_only=True):
    """Everything about a family but its weights."""

    format: Literal["drupelet.recipe/1"]
    family: NameText
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    summary: Sentence = ""
    context_tokens: Annotated[int, Meta(ge=16, le=2**20)]
    variants: Annotated[tuple[RecipeVariant, ...], Meta(min_length=1, max_length=32)]
    canonical_prompts: Annotated[tuple[CanonicalPrompt, ...], Meta(min_length=1, max_length=64)]
    evaluation: EvaluationPlan
    quality: QualityBudget = QualityBudget()
    budgets: Budgets = Budgets()
    requires: Requires = Requires()
    thermal: ThermalProfile = ThermalProfile()
    feature_flags: Annotated[dict[LabelKey, Label], Meta(max_length=64)] = {}  # noqa: RUF012 (msgspec copies it)
    stages: Annotated[tuple[StageAdvice, ...], Meta(max_length=16)] = ()

    def quality_of(self, variant: RecipeVariant) -> QualityBudget:
        """Return the budget that this variant is held to."""
        return variant.quality if variant.quality is not None else self.quality


def load_recipe(path: Path) -> tuple[Recipe, Digest]:
    """Return the recipe in a file and the digest of the file, or raise `RecipeBad` saying what and in which line."""
    try:
        with path.open("rb") as file:
            data = file.read(RECIPE_BYTES_MAX + 1)
    except OSError as error:
        raise RecipeBad(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse_recipe(data, where=str(path)), Digest.of_hex(hashlib.sha256(data).hexdigest())


def parse_recipe(data: bytes, *, where: str = "recipe") -> Recipe:
    """Return the recipe in `data`, or raise `RecipeBad`."""
    if len(data) > RECIPE_BYTES_MAX:
        raise RecipeBad(f"larger than the {RECIPE_BYTES_MAX} bytes allowed", where=where)
    try:
        text = data.decode("utf-8")
        fields = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise RecipeBad(f"not UTF-8 at byte {error.start}", where=where) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeBad(f"not TOML: {error}", where=where) from error
    _refuse_unknown_keys(fields, Recipe, "", text, where)
    try:
        recipe = msgspec.convert(fields, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeBad(str(error), where=_at(where, text, _last_key(str(error)))) from error
    _check(recipe, text, where)
    return recipe


def _check(recipe: Recipe, text: str, where: str) -> None:
    """Raise for what the types cannot say: names twice, unknown formats, patterns that cannot be applied."""
    for what, names in (
        ("variants", [variant.name for variant in recipe.variants]),
        ("canonical prompts", [prompt.id for prompt in recipe.canonical_prompts]),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise RecipeBad(f"two {what} are called {twice!r}", where=where)
    for variant in recipe.variants:
        chosen = FORMATS.get(variant.file_format)
        if chosen is None:
            fix = f"use one of {', '.join(FORMATS)}"
            raise RecipeBad(
                f"unknown file_format {variant.file_format!r}", where=_at(where, text, "file_format"), fix=fix
            )
        if variant.quantization not in chosen.quantizations:
            fix = f"use one of {', '.join(chosen.quantizations)}"
            at = _at(where, text, "quantization", variant.quantization)
            raise RecipeBad(f"unknown quantization {variant.quantization!r}", where=at, fix=fix)
    if not recipe.evaluation.prompts and not recipe.evaluation.texts:
        raise RecipeBad("evaluation has neither prompts nor texts", where=_at(where, text, "evaluation"))
    try:
        family(recipe.family)
        for prompt in recipe.canonical_prompts:
            for expectation in prompt.expect:
                check_expectation(expectation)
    except BadInput as error:
        raise RecipeBad(error.what, where=where, fix=error.fix) from error


def _refuse_unknown_keys(value: Any, kind: Any, path: str, text: str, where: str) -> None:
    """Raise for the first key, anywhere in `value`, that the type `kind` does not have."""
    kind = _without_wrapping(kind)
    if isinstance(value, list):
        item = typing.get_args(kind)[0] if typing.get_args(kind) else None
        for index, one in enumerate(value):
            _refuse_unknown_keys(one, item, f"{path}[{index + 1}]", text, where)
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        known = {field: hints[field] for field in kind.__struct_fields__}
        for key, inner in value.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                place = f" in {path.lstrip('.')}" if path else ""
                raise RecipeBad(f"unknown key {key!r}{place}", where=_at(where, text, key), fix=fix)
            _refuse_unknown_keys(inner, known[key], f"{path}.{key}", text, where)


def _without_wrapping(kind: Any) -> Any:
    """Return the type inside `Annotated[...]` and `... | None`."""
    while True:
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kind = next((part for part in typing.get_args(kind) if part is not type(None)), None)
        else:
            return kind


def _at(where: str, text: str, key: str, value: str = "") -> str:
    """Return `where` with the line on which `key` (and `value`, if given) is first written."""
    if not key:
        return where
    pattern = re.compile(rf"(^|[\s\[{{,.]){re.escape(key)}\s*(=|\]).*{re.escape(value)}")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.search(line):
            return f"{where}:{number}"
    return where


def _last_key(message: str) -> str:
    """Return the innermost key of a msgspec message's path, such as `$.variants[0].name`, or nothing."""
    found = re.search(r"`\$[^`]*?(\w+)(\[[^\]]*\])*`$", message) or re.search(r"field `(\w+)`", message)
    return found.group(1) if found else ""
