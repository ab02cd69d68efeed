"""What answering costs on this machine: speed, time to the first token, memory; with little and with much to read."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from drupelet.engine.client import Answer
from drupelet.engine.spec import EngineAnswered
from drupelet.forge.evaluation.questions import message_of
from drupelet.forge.recipe import Recipe
from drupelet.forge.report import CostAt
from drupelet.forge.runners.port import Session

FULL_TOKENS_MAX = 4096
"""A longer prompt would tell nothing new: a slow machine reads 20 tokens a second of a 3B model."""
_MARGIN_TOKENS = 8
_CHARACTERS_A_TOKEN = 3
"""Where the file does not say how many tokens a text has."""
_FILLER = "Please keep in mind what was said before. "


def speed(answers: Sequence[Answer]) -> float:
    """Return the median tokens a second; an answer's first token belongs to reading the prompt."""
    speeds = [1000 * (one.tokens - 1) / one.decode_ms for one in answers if one.tokens > 1 and one.decode_ms > 0]
    return statistics.median(speeds) if speeds else 0.0


def median_ms(values: Sequence[float]) -> float:
    """Return the median, 0 of nothing."""
    return statistics.median(values) if values else 0.0


def cost_short(answers: Sequence[Answer], session: Session) -> CostAt:
    """Return what the recipe's own prompts cost, as medians."""
    return CostAt(
        prompt_tokens=round(median_ms([answer.prompt_tokens for answer in answers])),
        ttft_ms=round(median_ms([answer.ttft_ms for answer in answers]), 2),
        tokens_per_second=round(speed(answers), 1),
        memory_bytes=session.memory_bytes_peak(),
    )


def cost_full(recipe: Recipe, session: Session) -> CostAt | None:
    """Return what an answer costs whose prompt nearly fills the context, at most `FULL_TOKENS_MAX` of it.

    None if the file refuses such a prompt.
    """
    plan = recipe.evaluation
    context = min(recipe.context_tokens, FULL_TOKENS_MAX)
    room = context - min(plan.answer_tokens_max, context // 4) - _MARGIN_TOKENS
    words = _words(recipe, session, room)
    if not words:
        return None
    try:
        answer = session.ask(message_of(" ".join(words)), tokens_max=min(plan.answer_tokens_max, room))
    except EngineAnswered:
        return None
    return CostAt(
        prompt_tokens=answer.prompt_tokens,
        ttft_ms=round(answer.ttft_ms, 2),
        tokens_per_second=round(speed([answer]), 1),
        memory_bytes=session.memory_bytes_peak(),
    )


def _words(recipe: Recipe, session: Session, room: int) -> list[str]:
    """Return as many words of the recipe's own prompts, again and again, as fit `room` tokens with the template."""
    source = " ".join([*recipe.evaluation.prompts, *recipe.evaluation.texts, _FILLER]).split()
    words = (source * (1 + room // max(1, len(source))))[:room]
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if _tokens(" ".join(words[:middle]), session) <= room:
            low = middle
        else:
            high = middle - 1
    return words[:low]


def _tokens(text: str, session: Session) -> int:
    rendered = session.render(message_of(text)) or text
    tokens = session.tokenize(rendered)
    return len(tokens) if tokens is not None else len(rendered) // _CHARACTERS_A_TOKEN
