"""One JSON object a line: questions on standard input, answers on standard output, the first one `{"ready": ...}`.

A question is `{"do": name, "with": {...}}`; an answer is `{"answer": ...}` or `{"error": text, "kind": name}`. Whatever
a library prints goes to standard error instead, so that it cannot be taken for an answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


class Refused(Exception):
    """What was asked is more than the model takes. `kind` is the word llama.cpp's server has for it."""

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(what)
        self.kind = kind


def take_output() -> TextIO:
    """Return standard output for answers alone; everything else printed from now on goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def serve(handlers: Mapping[str, Callable[..., Any]], answers: TextIO, **ready: Any) -> None:
    """Answer questions until standard input ends."""
    _say(answers, {"ready": ready})
    for line in sys.stdin:
        question = json.loads(line)
        try:
            _say(answers, {"answer": handlers[question["do"]](**question["with"])})
        except Refused as error:
            _say(answers, {"error": str(error), "kind": error.kind})
        except Exception as error:  # noqa: BLE001 (it is the parent's to judge)
            _say(answers, {"error": f"{type(error).__name__}: {error}", "kind": "server_error"})


def _say(answers: TextIO, what: Mapping[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


@dataclass
class Timed:
    """An answer's pieces and when they came."""

    text: str
    ttft_ms: float
    duration_ms: float

    @classmethod
    def of(cls, pieces: Iterable[str]) -> Timed:
        """Take all pieces, the clock running from now."""
        begun, first, text = time.perf_counter(), 0.0, ""
        for piece in pieces:
            first = first or time.perf_counter()
            text += piece
        ended = time.perf_counter()
        return cls(text=text, ttft_ms=1000 * ((first or ended) - begun), duration_ms=1000 * (ended - begun))

    def answer(self, *, prompt_tokens: int, tokens: int, stopped: bool) -> dict[str, Any]:
        """Return it in the fields of the engine's own answers."""
        return {
            "text": self.text,
            "finish": "stop" if stopped else "length",
            "prompt_tokens": prompt_tokens,
            "tokens": tokens,
            "ttft_ms": self.ttft_ms,
            "duration_ms": self.duration_ms,
            "decode_ms": self.duration_ms - self.ttft_ms if tokens > 1 else 0.0,
        }


def require_room(prompt_tokens: int, context_tokens: int) -> None:
    """Refuse a prompt that leaves no token for an answer."""
    if prompt_tokens >= context_tokens:
        what = f"the prompt has {prompt_tokens} tokens, and the context holds {context_tokens}"
        raise Refused(what, "exceed_context_size_error")


def write_logits(out: str, computed: Iterator[Any]) -> dict[str, Any]:
    """Write arrays of shape (positions, vocabulary), one a sequence, as float32; return their lengths and width."""
    lengths: list[int] = []
    vocab = 0
    with Path(out).open("wb") as file:
        for logits in computed:
            file.write(logits.astype("float32", copy=False).tobytes())
            lengths.append(int(logits.shape[0]))
            vocab = int(logits.shape[1])
    return {"lengths": lengths, "vocab": vocab}
