"""`recipe.toml`: what a family's releases are made of, what a good answer is, and what may not be exceeded.

One recipe serves all versions of a family; the version and the checkpoint are given when a release is built. The types
that reach the device (canonical prompts, budgets, requirements) are the manifest's own. Unknown keys are refused with
the nearest known one, because a misspelt budget would otherwise be no budget. See docs/formats/checkpoint.md.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, family
from drupelet.engine.canonical import check as check_expectation
from drupelet.forge.checks import Check, GroupBudget, check_problems
from drupelet.forge.convert import Wanted
from drupelet.forge.errors import RecipeBad
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.kinds import KINDS
from drupelet.forge.formats.lora import LORA
from drupelet.wire.fields import Label, LabelKey, NameText, NonNegative, Sentence
from drupelet.wire.manifest import Budgets, CanonicalPrompt, Lock, Part, Requires, StageAdvice, ThermalProfile
from drupelet.wire.places import place_of, toml_places
from drupelet.wire.problems import Problem, problems

RECIPE_BYTES_MAX = 1 << 20
FORMAT = "drupelet.recipe/1"
ONLY_TAKEN = tuple(name for name, made in FORMATS.items() if not made.quantizations)
"""Formats that nothing here makes or runs: a recipe gives the file, and says what is known of it."""

Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=8_000)]


class QualityBudget(Part, frozen=True, kw_only=True):
    """How far a variant may be from the f16 reference. KL in nats a token."""

    kl_mean_max: NonNegative = 0.02
    kl_p99_max: NonNegative | None = None
    top1_agreement_min: Share = 0.9


class RecipeAdapter(Part, frozen=True, kw_only=True):
    """A LoRA adapter that is a variant of its own, applied to another variant."""

    folder: Annotated[str, Meta(min_length=1, max_length=4096)]
    """In PEFT's layout; relative to the recipe's folder."""
    base: NameText
    """The variant that it is applied to."""


class RecipeVariant(Part, frozen=True, kw_only=True):
    """A variant to make, in the order of preference on a device that could run several."""

    name: NameText
    quantization: str
    file_format: str = "gguf"
    file: str = ""
    """A GGUF or HEF to take as it is, or another checkpoint's folder to convert; relative to the recipe's folder."""
    npu_required: bool = False
    lock: Lock | None = None
    """What the file is bound to, beyond what it says itself."""
    memory_bytes: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None
    """What it takes on a device at `context_tokens`, where it cannot be run here and so not be measured."""
    evaluated_elsewhere: Sentence = ""
    """Where and how it was judged, where it cannot be run here. The words are in the report, which is signed."""
    adapter: RecipeAdapter | None = None
    """Of a `gguf-lora`."""
    quality: QualityBudget | None = None
    """Instead of the recipe's own budget."""

    @property
    def wanted(self) -> Wanted:
        """As the converter takes it."""
        return Wanted(
            name=typing.cast(Any, self.name),
            quantization=self.quantization,
            file_format=self.file_format,
            file=self.file,
        )


class EvaluationPlan(Part, frozen=True, kw_only=True):
    """On what variants are compared with the reference."""

    prompts: Annotated[tuple[Text, ...], Meta(max_length=2_000)] = ()
    """Questions, put through the chat template and followed by the reference's own answer."""
    texts: Annotated[tuple[Text, ...], Meta(max_length=2_000)] = ()
    """Texts taken as they are."""
    answer_tokens_max: Annotated[int, Meta(ge=1, le=1024)] = 48
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    """More threads than idle cores make small models slower, not faster: they wait for each other."""
    weights: bool = True
    """Whether each block of weights is compared with the reference's, too; the time of reading both files."""
    refusal_phrases: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    """How this model refuses, beside the usual phrases."""


class Calibration(Part, frozen=True, kw_only=True):
    """What the importance matrix is made from: a text beside the recipe, or in it. Only the toolchain makes one."""

    file: Annotated[str, Meta(max_length=4096)] = ""
    """Relative to the recipe's folder."""
    text: Annotated[str, Meta(max_length=1 << 20)] = ""
    context_tokens: Annotated[int, Meta(ge=16, le=2048)] = 512
    """How long a piece of the text the model sees at once: a power of two."""
    chunks: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """How many pieces; 0 takes all."""


class DataSet(Part, frozen=True, kw_only=True):
    """Data that the model was trained or calibrated with."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    url: Annotated[str, Meta(max_length=2048)] = ""
    license: Annotated[str, Meta(max_length=200)] = ""


class ModelCard(Part, frozen=True, kw_only=True):
    """What the bill of materials says of the model and nobody can measure. Licences are SPDX expressions."""

    license: Annotated[str, Meta(max_length=200)] = ""
    source: Annotated[str, Meta(max_length=2048)] = ""
    """Where the checkpoint comes from."""
    datasets: Annotated[tuple[DataSet, ...], Meta(max_length=64)] = ()
    uses: Annotated[tuple[Sentence, ...], Meta(max_length=32)] = ()
    limitations: Annotated[tuple[Sentence, ...], Meta(max_length=32)] = ()


class Recipe(Part, frozen=True, kw_only=True):
    """Everything about a family but its weights."""

    format: Literal["drupelet.recipe/1"]
    family: NameText
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    summary: Sentence = ""
    context_tokens: Annotated[int, Meta(ge=16, le=2**20)]
    converter: Literal["embedded", "toolchain"] = "embedded"
    """Who makes the GGUF files: Drupelet itself, or llama.cpp's own tools (`drupelet forge toolchain build`)."""
    calibration: Calibration | None = None
    variants: Annotated[tuple[RecipeVariant, ...], Meta(min_length=1, max_length=32)]
    canonical_prompts: Annotated[tuple[CanonicalPrompt, ...], Meta(min_length=1, max_length=64)]
    evaluation: EvaluationPlan
    checks: Annotated[tuple[Check, ...], Meta(max_length=500)] = ()
    """Asked in the forge only."""
    groups: Annotated[dict[NameText, GroupBudget], Meta(max_length=64)] = {}  # noqa: RUF012 (msgspec copies it)
    """Budgets of groups of checks; a group without one must be answered well in full."""
    quality: QualityBudget = QualityBudget()
    budgets: Budgets = Budgets()
    requires: Requires = Requires()
    thermal: ThermalProfile = ThermalProfile()
    feature_flags: Annotated[dict[LabelKey, Label], Meta(max_length=64)] = {}  # noqa: RUF012 (msgspec copies it)
    stages: Annotated[tuple[StageAdvice, ...], Meta(max_length=16)] = ()
    card: ModelCard = ModelCard()

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
    for problem in problems(fields, Recipe):
        raise _bad(problem, text, where)
    recipe = msgspec.convert(fields, Recipe)
    for problem in contradictions(recipe):
        raise _bad(problem, text, where)
    return recipe


def _bad(problem: Problem, text: str, where: str) -> RecipeBad:
    place = place_of(toml_places(text), problem.path)
    return RecipeBad(problem.what, where=f"{where}:{place.line}" if place else where, fix=problem.fix)


def _quantization(recipe: Recipe, index: int, embedded: Sequence[str]) -> Problem | None:
    """Return what is wrong with a variant's quantization, if anything is."""
    variant, path = recipe.variants[index], ("variants", index, "quantization")
    wanted = variant.quantization
    if variant.file.endswith(".gguf") or variant.file_format in ONLY_TAKEN:
        return None  # held against the file itself, as far as it says
    by_tools = recipe.converter == "toolchain" and variant.file_format == "gguf"
    known = tuple(KINDS) if by_tools else embedded
    if wanted in known:
        if by_tools and KINDS[wanted].needs_importance and recipe.calibration is None:
            return Problem(
                path=path, what=f"{wanted} needs an importance matrix", fix="give the recipe a [calibration] text"
            )
        return None
    if variant.file_format == "gguf" and wanted in KINDS:
        what = f"{wanted} is not made by the embedded converter"
        return Problem(path=path, what=what, fix='set converter = "toolchain" and run: drupelet forge toolchain build')
    near = difflib.get_close_matches(wanted, known, n=1)
    said = f"did you mean {near[0]!r}? " if near else ""
    return Problem(path=path, what=f"unknown quantization {wanted!r}", fix=f"{said}use one of {', '.join(known)}")


def _taken(variant: RecipeVariant, index: int) -> Iterator[Problem]:
    """Yield what is wrong with a variant of a format that is only taken, or with what only such a one may say."""
    path, only = ("variants", index), variant.file_format in ONLY_TAKEN
    if only and not variant.file:
        fix = f'give it the file: file = "{variant.name}.{variant.file_format}"'
        yield Problem(path=(*path, "file_format"), what=f"a {variant.file_format} file is not made here", fix=fix)
    if variant.file and variant.file_format not in ("gguf", *ONLY_TAKEN) and Path(variant.file).suffix:
        fix = "leave `file` out to have it made here, or name a checkpoint's folder"
        yield Problem(path=(*path, "file"), what=f"a file of the format {variant.file_format} is not taken", fix=fix)
    for key, given in (("memory_bytes", variant.memory_bytes), ("evaluated_elsewhere", variant.evaluated_elsewhere)):
        if only and not given:
            what = f"{variant.name} cannot be run here, so {key} must say what is known of it"
            yield Problem(path=path, what=what, fix=f"add {key}")
        elif given and not only:
            what = f"{key} is for what cannot be run here, and {variant.name} is measured"
            yield Problem(path=(*path, key), what=what, fix="leave it out")


def _adapters(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with variants that are adapters."""
    whole = {variant.name for variant in recipe.variants if variant.file_format == "gguf"}
    for index, variant in enumerate(recipe.variants):
        path = ("variants", index)
        if (variant.adapter is not None) != (variant.file_format == LORA):
            what = "an adapter and file_format gguf-lora go together"
            yield Problem(path=path, what=what, fix='give both file_format = "gguf-lora" and adapter, or neither')
        elif variant.adapter is None:
            continue
        elif recipe.converter != "toolchain":
            what = "adapters are made by llama.cpp's tools"
            yield Problem(path=path, what=what, fix='set converter = "toolchain", or merge it: drupelet forge merge')
        elif variant.adapter.base not in whole:
            what = f"the adapter's base {variant.adapter.base!r} is no gguf variant of this recipe"
            yield Problem(path=path, what=what, fix=f"use one of {', '.join(sorted(whole)) or 'none: add one'}")


def _calibration(recipe: Recipe) -> Iterator[Problem]:
    wanted = recipe.calibration
    if wanted is None:
        return
    if recipe.converter != "toolchain":
        yield Problem(
            path=("calibration",),
            what="only llama.cpp's tools use a calibration text",
            fix='set converter = "toolchain", or leave it out',
        )
    if bool(wanted.file) == bool(wanted.text):
        yield Problem(path=("calibration",), what="calibration needs either a file or a text")
    if wanted.context_tokens & (wanted.context_tokens - 1):
        yield Problem(
            path=("calibration", "context_tokens"),
            what=f"{wanted.context_tokens} is no power of two",
            fix="use 128, 256, 512, 1024 or 2048",
        )


def contradictions(recipe: Recipe) -> Iterator[Problem]:
    """Yield what the types cannot say: names twice, unknown formats, patterns that cannot be applied."""
    for table, names in (
        ("variants", [variant.name for variant in recipe.variants]),
        ("canonical_prompts", [prompt.id for prompt in recipe.canonical_prompts]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Problem(path=(table, index), what=f"two {table.replace('_', ' ')} are called {name!r}")
    for index, variant in enumerate(recipe.variants):
        chosen = FORMATS.get(variant.file_format)
        if variant.file_format == LORA:
            if variant.quantization != "f16":
                at, what = ("variants", index, "quantization"), "an adapter's own quantization is f16"
                yield Problem(path=at, what=what, fix="quantize its base instead")
        elif chosen is None:
            yield Problem(
                path=("variants", index, "file_format"),
                what=f"unknown file_format {variant.file_format!r}",
                fix=f"use one of {', '.join((*FORMATS, LORA))}",
            )
        elif (problem := _quantization(recipe, index, chosen.quantizations)) is not None:
            yield problem
        yield from _taken(variant, index)
    yield from _calibration(recipe)
    yield from _adapters(recipe)
    if not recipe.evaluation.prompts and not recipe.evaluation.texts:
        yield Problem(path=("evaluation",), what="evaluation has neither prompts nor texts")
    try:
        family(recipe.family)
    except BadInput as error:
        yield Problem(path=("family",), what=error.what, fix=error.fix)
    for index, prompt in enumerate(recipe.canonical_prompts):
        for number, expectation in enumerate(prompt.expect):
            try:
                check_expectation(expectation)
            except BadInput as error:
                path = ("canonical_prompts", index, "expect", number, "value")
                yield Problem(path=path, what=error.what, fix=error.fix)
    yield from check_problems(recipe.checks, recipe.groups)
