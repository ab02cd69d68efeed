"""Answers questions about a LiteRT-LM file: `litert_run.py FILE CONTEXT THREADS`.

Answers come from LiteRT-LM's own engine. It gives no logits, so those come from the same graph inside the file, token
by token through its `decode` signature, in the interpreter that the engine is built on.
"""

from __future__ import annotations

import io
import mmap
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import wireline

MODEL_TYPE = "tf_lite_prefill_decode"
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)
"""As the engine masks: far from any score, and still far when something is added."""


class Model:
    """The file, opened once."""

    def __init__(self, file: str, context_tokens: int, threads: int) -> None:
        import litert_lm

        self._litert, self._file = litert_lm, file
        self._context, self._threads = context_tokens, threads
        backend = litert_lm.Backend.CPU(thread_count=threads)
        # It would write a cache of packed weights beside the model.
        self._engine = litert_lm.Engine(
            file, backend=backend, max_num_tokens=context_tokens, cache_dir=":nocache", enable_benchmark=True
        )
        self._bos = self._engine.bos_token_id

    def ask(self, messages: list[dict[str, str]], tokens_max: int) -> dict[str, Any]:
        """Answer greedily, stopping at the file's own end tokens."""
        prompt = self._engine.tokenize(self.render(messages))
        prompt_tokens = len(prompt) + (self._bos is not None)
        wireline.require_room(prompt_tokens, self._context)
        sampler = self._litert.SamplerConfig(top_k=1, temperature=0.0)
        limit = min(tokens_max, self._context - prompt_tokens)
        with self._engine.create_conversation(
            messages=messages[:-1] or None, sampler_config=sampler, max_output_tokens=limit
        ) as conversation:
            begun = time.perf_counter()
            said = conversation.send_message(messages[-1])
            duration_ms = 1000 * (time.perf_counter() - begun)
            costs = conversation.get_benchmark_info()
        text = "".join(part.get("text", "") for part in said["content"])
        tokens = int(costs.last_decode_token_count)
        # Its streamed pieces come late and several at once, so the times are the engine's own.
        ttft_ms = 1000 * costs.time_to_first_token_in_second
        speed = costs.last_decode_tokens_per_second
        return {
            "text": text,
            "finish": "stop" if tokens > len(self._engine.tokenize(text)) else "length",
            "prompt_tokens": prompt_tokens,
            "tokens": tokens,
            "ttft_ms": ttft_ms,
            "duration_ms": duration_ms,
            "decode_ms": 1000 * (tokens - 1) / speed if tokens > 1 and speed > 0 else 0.0,
        }

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Split as the engine does."""
        begin = [int(self._bos)] if special and self._bos is not None else []
        return begin + [int(token) for token in self._engine.tokenize(text)]

    def render(self, messages: list[dict[str, str]]) -> str:
        """Return what the engine would read, without the begin token."""
        with self._engine.create_conversation(messages=messages[:-1] or None) as conversation:
            return str(conversation.render_message_to_string(messages[-1]))

    def special_tokens(self) -> dict[str, str | None]:
        """Return the end token's text. Of a begin token the file says something only if texts are given one."""
        ends = [tokens[0] for tokens in self._engine.eos_token_ids if len(tokens) == 1]
        known = self._vocabulary()
        return {"bos": known.get(self._bos) if self._bos is not None else None, "eos": known.get(ends[0], "")}

    def logits(self, sequences: list[list[int]], out: str) -> dict[str, Any]:
        """Write the logits of every position of every sequence."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self._section(MODEL_TYPE), num_threads=self._threads)
        decode = interpreter.get_signature_runner("decode")
        inputs = decode.get_input_details()
        caches = {name: about for name, about in inputs.items() if name.startswith("kv_cache")}

        def one(sequence: list[int]) -> Any:
            state = {name: np.zeros(about["shape"], about["dtype"]) for name, about in caches.items()}
            mask = _hidden(inputs["mask"])
            rows = []
            for position, token in enumerate(sequence):
                mask[..., position] = _seen(inputs["mask"])
                at = {"tokens": np.array([[token]], np.int32), "input_pos": np.array([position], np.int32)}
                given = decode(**at, mask=mask, **state)
                state = {name: given[name] for name in caches}
                rows.append(given["logits"].reshape(-1))
            return np.stack(rows)

        return wireline.write_logits(out, (one(sequence) for sequence in sequences))

    def _section(self, model_type: str) -> bytes:
        from litert_lm_builder import litertlm_peek

        sections = litertlm_peek.read_litertlm_header(self._file, io.StringIO()).SectionMetadata()
        for index in range(sections.ObjectsLength()):
            section = sections.Objects(index)
            if litertlm_peek.get_model_type(section) == model_type:
                return self._bytes(section)
        raise ValueError(f"there is no {model_type} in the file")

    def _bytes(self, section: Any) -> bytes:
        with Path(self._file).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return bytes(data[section.BeginOffset() : section.EndOffset()])

    def _vocabulary(self) -> Any:
        return _Texts(self._engine)


class _Texts:
    """Token -> text, as the engine writes it back."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get(self, token: int, default: str = "") -> str:
        """Return a token's text."""
        return str(self._engine.detokenize([int(token)])) or default


def _hidden(about: Any) -> Any:
    return np.full(about["shape"], False if about["dtype"] is np.bool_ else MASKED, about["dtype"])


def _seen(about: Any) -> Any:
    return True if about["dtype"] is np.bool_ else np.float32(0)


def main(file: str, context_tokens: str, threads: str) -> None:
    """Load, then answer."""
    answers = wireline.take_output()
    model = Model(file, int(context_tokens), int(threads))
    names = ("ask", "tokenize", "render", "special_tokens", "logits")
    wireline.serve({name: getattr(model, name) for name in names}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
