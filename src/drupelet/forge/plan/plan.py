"""Every variant on every board: what it would take and give, which are worth having, which set to ship. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from drupelet.forge.plan.boards import Board
from drupelet.forge.plan.pareto import pareto
from drupelet.forge.plan.predict import predict_kl, predict_memory, predict_size, predict_speed
from drupelet.forge.recipe import Recipe, RecipeVariant
from drupelet.forge.report import Report
from drupelet.forge.shape import ModelShape

SPEED_MIN = 5.0
"""Tokens a second that people read along with, where the recipe names no budget."""
PREDICTED, MEASURED, UNKNOWN = "predicted", "measured", "unknown"


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One variant on one board. `fits` and `speed_ok` are None where the board runs no file of its format."""

    board: str
    runs: bool
    fits: bool | None = None
    spare_bytes: int = 0
    """What would be left of the board's memory; below 0 is missing."""
    tokens_per_second_low: float = 0.0
    tokens_per_second_high: float = 0.0
    fast_enough: bool | None = None
    """Whether the middle of the two keeps the recipe's budget."""
    recommended: bool = False


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One variant."""

    name: str
    quantization: str
    file_format: str
    size_bytes: int | None
    size_is: str
    memory_bytes: dict[int, int]
    """Context in tokens -> predicted bytes."""
    kl_mean: float | None
    kl_is: str
    worth_having: bool
    """Whether no other variant is both smaller and closer to f16."""
    boards: tuple[Placed, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. What is predicted says so."""

    release: str
    parameters: int
    context_tokens: int
    tokens_per_second_min: float
    variants: tuple[Planned, ...]
    recommended: tuple[str, ...]
    """Those that some board is served best by, in the recipe's order."""
    boards: Annotated[tuple[dict[str, str | int | float | bool], ...], Meta(max_length=64)]


def make_plan(
    recipe: Recipe,
    shape: ModelShape,
    boards: Sequence[Board],
    *,
    parameters: int,
    feed_forward: int,
    contexts: Sequence[int] = (),
    report: Report | None = None,
) -> Plan:
    """Return the plan for a recipe and a model of this shape. A report's sizes and divergences are used as measured."""
    every = tuple(dict.fromkeys((recipe.context_tokens, *contexts)))
    least = recipe.budgets.tokens_per_second_min or SPEED_MIN
    planned = []
    for variant in recipe.variants:
        size, size_is = _size(variant, parameters, report)
        kl, kl_is = _kl(variant, report)
        memory = {
            tokens: predict_memory(size, shape, feed_forward=feed_forward, context_tokens=tokens).total
            for tokens in every
            if size is not None
        }
        placed = tuple(
            _placed(variant, board, size, memory.get(recipe.context_tokens, 0), shape, recipe.context_tokens, least)
            for board in boards
        )
        planned.append(
            Planned(
                name=variant.name,
                quantization=variant.quantization,
                file_format=variant.file_format,
                size_bytes=size,
                size_is=size_is,
                memory_bytes=memory,
                kl_mean=kl,
                kl_is=kl_is,
                worth_having=False,
                boards=placed,
            )
        )
    marked = _recommend(_worth(planned), boards, recipe)
    chosen = tuple(one.name for one in marked if any(placed.recommended for placed in one.boards))
    return Plan(
        release=recipe.family,
        parameters=parameters,
        context_tokens=recipe.context_tokens,
        tokens_per_second_min=least,
        variants=tuple(marked),
        recommended=chosen,
        boards=tuple(_described(board) for board in boards),
    )


def _size(variant: RecipeVariant, parameters: int, report: Report | None) -> tuple[int | None, str]:
    measured = report.variant(variant.name) if report is not None else None
    if measured is not None:
        return measured.size_bytes, MEASURED
    size = predict_size(parameters, variant.quantization)
    return size, UNKNOWN if size is None else PREDICTED


def _kl(variant: RecipeVariant, report: Report | None) -> tuple[float | None, str]:
    measured = report.variant(variant.name) if report is not None else None
    if measured is not None and measured.quality is not None:
        return measured.quality.kl_mean, MEASURED
    kl = predict_kl(variant.quantization)
    return kl, UNKNOWN if kl is None else PREDICTED


def _placed(
    variant: RecipeVariant,
    board: Board,
    size: int | None,
    memory: int,
    shape: ModelShape,
    context_tokens: int,
    least: float,
) -> Placed:
    if variant.file_format not in board.formats or size is None:
        return Placed(board=board.name, runs=variant.file_format in board.formats)
    low, high = predict_speed(size, shape, board, context_tokens=context_tokens)
    spare = board.usable_bytes - memory
    return Placed(
        board=board.name,
        runs=True,
        fits=spare >= 0,
        spare_bytes=spare,
        tokens_per_second_low=round(low, 2),
        tokens_per_second_high=round(high, 2),
        fast_enough=(low + high) / 2 >= least,
    )


def _worth(planned: Sequence[Planned]) -> list[Planned]:
    known = [one for one in planned if one.size_bytes is not None and one.kl_mean is not None]
    front = {known[index].name for index in pareto([(one.size_bytes or 0, one.kl_mean or 0.0) for one in known])}
    return [msgspec.structs.replace(one, worth_having=one.name in front) for one in planned]


def _recommend(planned: Sequence[Planned], boards: Sequence[Board], recipe: Recipe) -> list[Planned]:
    """Mark for each board the first in the recipe's order of preference that fits, is fast and close enough to f16."""
    limits = {variant.name: recipe.quality_of(variant).kl_mean_max for variant in recipe.variants}
    best: dict[str, str] = {}
    for index, board in enumerate(boards):
        for one in planned:
            close = one.kl_mean is not None and one.kl_mean <= limits[one.name]
            if one.boards[index].fits and one.boards[index].fast_enough and close:
                best[board.name] = one.name
                break
    return [
        msgspec.structs.replace(
            one,
            boards=tuple(
                msgspec.structs.replace(placed, recommended=best.get(placed.board) == one.name) for placed in one.boards
            ),
        )
        for one in planned
    ]


def _described(board: Board) -> dict[str, str | int | float | bool]:
    return {
        "name": board.name,
        "words": board.words,
        "memory_bytes": board.memory_bytes,
        "usable_bytes": board.usable_bytes,
        "bandwidth": board.bandwidth,
        "share_low": board.share_low,
        "share_high": board.share_high,
        "calibrated": board.calibrated,
        "source": board.source,
    }
