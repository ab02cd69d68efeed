"""Answers questions about an ONNX Runtime GenAI folder: `onnx_run.py FOLDER CONTEXT THREADS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import wireline


class Model:
    """The folder, loaded once."""

    def __init__(self, folder: str, context_tokens: int, threads: int) -> None:
        import onnxruntime_genai as genai

        self._genai, self._context = genai, context_tokens
        config = genai.Config(folder)
        settings = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": settings}}}))
        self._model = genai.Model(config)
        self._tokenizer = genai.Tokenizer(self._model)
        self._about = json.loads((Path(folder) / "genai_config.json").read_text())["model"]
        vocabulary = json.loads((Path(folder) / "tokenizer.json").read_text())
        self._texts = {token: text for text, token in vocabulary["model"]["vocab"].items()}
        self._texts |= {added["id"]: added["content"] for added in vocabulary["added_tokens"]}

    def ask(self, messages: list[dict[str, str]], tokens_max: int) -> dict[str, Any]:
        """Answer greedily, stopping at the folder's own end tokens."""
        prompt = self._tokenizer.encode(self.render(messages))
        wireline.require_room(len(prompt), self._context)
        limit = min(len(prompt) + tokens_max, self._context)
        generator = self._generator(limit)
        made: list[int] = []

        def pieces() -> Iterator[str]:
            stream = self._tokenizer.create_stream()
            generator.append_tokens(prompt)
            while not generator.is_done():
                generator.generate_next_token()
                made.append(int(generator.get_next_tokens()[0]))
                if made[-1] not in self._ends():
                    yield stream.decode(made[-1])

        timed = wireline.Timed.of(pieces())
        stopped = bool(made) and made[-1] in self._ends()
        return timed.answer(prompt_tokens=len(prompt), tokens=len(made), stopped=stopped)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Split as this package does."""
        tokens = [int(token) for token in self._tokenizer.encode(text)]
        return tokens if special or tokens[:1] != [self._about["bos_token_id"]] else tokens[1:]

    def render(self, messages: list[dict[str, str]]) -> str:
        """Apply the folder's chat template."""
        said = self._tokenizer.apply_chat_template(messages=json.dumps(messages), add_generation_prompt=True)
        return str(said)

    def special_tokens(self) -> dict[str, str]:
        """Return the texts of the tokens that the folder's config names."""
        return {"bos": self._texts.get(self._about["bos_token_id"], ""), "eos": self._texts.get(self._ends()[0], "")}

    def logits(self, sequences: list[list[int]], out: str) -> dict[str, Any]:
        """Write the logits of every position of every sequence."""

        def computed() -> Iterator[Any]:
            for sequence in sequences:
                generator = self._generator(len(sequence) + 1)
                generator.append_tokens(np.array([sequence], dtype=np.int32))
                yield np.array(generator.get_output("logits"))[0]

        return wireline.write_logits(out, computed())

    def _generator(self, tokens: int) -> Any:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=tokens, do_sample=False)
        return self._genai.Generator(self._model, params)

    def _ends(self) -> list[int]:
        ends = self._about["eos_token_id"]
        return ends if isinstance(ends, list) else [ends]


def main(folder: str, context_tokens: str, threads: str) -> None:
    """Load, then answer."""
    answers = wireline.take_output()
    model = Model(folder, int(context_tokens), int(threads))
    names = ("ask", "tokenize", "render", "special_tokens", "logits")
    wireline.serve({name: getattr(model, name) for name in names}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
