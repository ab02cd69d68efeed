"""Asking a slot's child the canonical prompts, at temperature 0, beside the traffic. The agent judges the answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from drupelet.gateway.children import Running
from drupelet.gateway.errors import ChildGone
from drupelet.gateway.upstream import GONE, Reading, whole
from drupelet.wire.control import PromptResult, Trial, TrialReport
from drupelet.wire.manifest import CanonicalPrompt

TEXT_CHARACTERS_MAX = 32_000
_EVENT = b"data: "
_DONE = b"[DONE]"


async def run_trial(running: Running, trial: Trial) -> TrialReport:
    """Return all answers in order; one that failed carries its error. Raises `ChildGone` when the child dies."""
    results = []
    memory = running.child.rss_bytes_peak()
    for prompt in trial.prompts:
        results.append(await _ask(running, prompt, answer_ms_max=trial.answer_ms_max))
        if running.gone.is_set():
            raise ChildGone(f"the child of slot {trial.slot.value} ended during the trial, at prompt {prompt.id}")
        memory = max(memory, running.child.rss_bytes_peak())
    return TrialReport(results=tuple(results), memory_bytes=memory)


async def _ask(running: Running, prompt: CanonicalPrompt, *, answer_ms_max: int) -> PromptResult:
    body = msgspec.json.encode(
        {
            "messages": [{"role": "user", "content": prompt.prompt}],
            "max_tokens": prompt.tokens_max,
            "temperature": 0,
            "seed": 0,
            "stream": True,
            "cache_prompt": False,
        }
    )
    begun = time.monotonic()
    first = 0.0
    data = bytearray()
    reading = Reading()
    error = ""
    try:
        async with asyncio.timeout(answer_ms_max / 1000), running.upstream.chat(body) as answer:
            if answer.status != 200:
                said = await whole(answer)
                error = f"the child answered with status {answer.status}: {said[:500].decode('utf-8', 'replace')}"
            async for chunk in answer.content.iter_any():
                if reading.feed(chunk):
                    first = time.monotonic()
                data += chunk
    except TimeoutError:
        error = f"no whole answer within {answer_ms_max} ms"
    except GONE as gone:
        error = f"the child broke off: {type(gone).__name__}"
    ended = time.monotonic()
    text, failed = text_of(bytes(data))
    timings = reading.timings()
    tokens = timings.completion_tokens if timings else 0
    decode_s = timings.decode_s if timings else ended - (first or begun)
    return PromptResult(
        id=prompt.id,
        text=text[:TEXT_CHARACTERS_MAX],
        tokens=tokens,
        ttft_ms=((first or ended) - begun) * 1000,
        answer_ms=(ended - begun) * 1000,
        tokens_per_second=(tokens - 1) / decode_s if tokens > 1 and decode_s > 0 else 0.0,
        error=(error or failed)[:1000],
    )


def text_of(stream: bytes) -> tuple[str, str]:
    """Return the text in a whole event stream, and what went wrong in it or the empty string."""
    pieces: list[str] = []
    for event in stream.split(b"\n\n"):
        data = event.strip().removeprefix(_EVENT)
        if not data or data == _DONE:
            continue
        try:
            said: dict[str, Any] = msgspec.json.decode(data)
            if "error" in said:
                return "".join(pieces), f"the child said: {said['error']['message']}"
            pieces += [choice["delta"].get("content") or "" for choice in said["choices"]]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            return "".join(pieces), "the child's answer is not what llama.cpp sends"
    return "".join(pieces), ""
