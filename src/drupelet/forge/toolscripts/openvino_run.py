"""Answers questions about an OpenVINO GenAI folder: `openvino_run.py FOLDER CONTEXT THREADS`.

Answers come from OpenVINO GenAI; logits from the same graph, a whole sequence at a time. Both count in f32: left alone,
OpenVINO takes bf16 on processors that have it, and the same file would give other numbers elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import wireline

MODEL = "openvino_model.xml"


class Model:
    """The folder, loaded once."""

    def __init__(self, folder: str, context_tokens: int, threads: int) -> None:
        import openvino_genai

        self._genai, self._folder, self._context = openvino_genai, Path(folder), context_tokens
        self._settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._pipeline = openvino_genai.LLMPipeline(folder, "CPU", **self._settings)
        self._tokenizer = self._pipeline.get_tokenizer()

    def ask(self, messages: list[dict[str, str]], tokens_max: int) -> dict[str, Any]:
        """Answer greedily, stopping at the folder's own end tokens."""
        prompt = self._tokenizer.encode(self.render(messages), add_special_tokens=False)
        prompt_tokens = int(prompt.input_ids.shape[1])
        wireline.require_room(prompt_tokens, self._context)
        config = self._pipeline.get_generation_config()
        config.max_new_tokens = min(tokens_max, self._context - prompt_tokens)
        config.do_sample = False
        config.apply_chat_template = False
        found = self._pipeline.generate(prompt, config)
        tokens = list(found.tokens[0])
        text = str(self._tokenizer.decode(tokens))
        costs = found.perf_metrics
        stopped = len(tokens) < config.max_new_tokens or tokens[-1] in config.stop_token_ids
        timed = wireline.Timed(text=text, ttft_ms=costs.get_ttft().mean, duration_ms=costs.get_generate_duration().mean)
        return timed.answer(prompt_tokens=prompt_tokens, tokens=len(tokens), stopped=stopped)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Split as the tokenizer's graph does."""
        found = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data
        return [int(token) for token in found[0]] if found.size else []

    def render(self, messages: list[dict[str, str]]) -> str:
        """Apply the folder's chat template."""
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def special_tokens(self) -> dict[str, str]:
        """Return what the tokenizer's graph says of itself."""
        return {"bos": self._tokenizer.get_bos_token(), "eos": self._tokenizer.get_eos_token()}

    def logits(self, sequences: list[list[int]], out: str) -> dict[str, Any]:
        """Write the logits of every position of every sequence."""
        import openvino

        compiled = openvino.Core().compile_model(str(self._folder / MODEL), "CPU", self._settings)
        request = compiled.create_infer_request()

        def computed() -> Iterator[Any]:
            for sequence in sequences:
                request.reset_state()
                length = len(sequence)
                given = request.infer(
                    {
                        "input_ids": np.array([sequence], np.int64),
                        "attention_mask": np.ones((1, length), np.int64),
                        "position_ids": np.arange(length, dtype=np.int64)[None],
                        "beam_idx": np.zeros(1, np.int32),
                    }
                )
                yield np.array(given["logits"])[0]

        return wireline.write_logits(out, computed())


def main(folder: str, context_tokens: str, threads: str) -> None:
    """Load, then answer."""
    answers = wireline.take_output()
    model = Model(folder, int(context_tokens), int(threads))
    names = ("ask", "tokenize", "render", "special_tokens", "logits")
    wireline.serve({name: getattr(model, name) for name in names}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
