"""What the forge's larger benchmarks share: a checkpoint of a billion weights, and processes measured whole.

The checkpoint has the shape of a small Llama (16 layers of 2,048 by 8,192) in float16, 2 GB, made from one seed in
seconds: a block of normal numbers, read from another place for every tensor. It says nothing, but costs what a real one
costs.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import sentencepiece

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.tiny_checkpoint import CHAT_TEMPLATE, TinyLlama, config_of  # noqa: E402

BILLION = TinyLlama(hidden=2048, ffn=8192, layers=16, heads=32, kv_heads=8, vocab=4096, context=2048)
_BLOCK = 1 << 24
_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a process and its children: seconds from start to end, processor seconds, most resident memory."""

    seconds: float
    processor_s: float
    peak_mib: float
    output: str = ""

    def then(self, other: Measured) -> Measured:
        """Return both, one after the other."""
        return Measured(
            seconds=self.seconds + other.seconds,
            processor_s=self.processor_s + other.processor_s,
            peak_mib=max(self.peak_mib, other.peak_mib),
        )


def measure(command: Sequence[str | Path], *, cwd: Path | None = None) -> Measured:
    """Run a command to its end, quietly, and return what it took. Its output is shown if it fails."""
    begun, used = time.monotonic(), processor_s()
    with subprocess.Popen(
        [str(word) for word in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        peak = _Peak(process.pid)
        output, _ = process.communicate()
        peak.stop()
    if process.returncode:
        sys.stdout.write(output.decode(errors="replace")[-4000:])
        raise SystemExit(f"failed: {' '.join(map(str, command))[:200]}")
    seconds = time.monotonic() - begun
    return Measured(seconds=seconds, processor_s=processor_s() - used, peak_mib=peak.mib, output=output.decode())


def busy() -> bool:
    """Whether other work keeps this machine's processors: then seconds on the clock say little."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


def processor_s() -> float:
    """Return the processor seconds of this process and of all its children that have ended."""
    own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime


class _Peak:
    """Samples the resident memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            total = 0
            try:
                for one in (self._process, *self._process.children(recursive=True)):
                    total += one.memory_info().rss
            except psutil.Error:
                continue
            self.mib = max(self.mib, total / 2**20)


def write_checkpoint(folder: Path, *, shape: TinyLlama = BILLION) -> Path:
    """Write the checkpoint to `folder`, tensor by tensor, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    block = (np.random.default_rng(1).standard_normal(2 * _BLOCK, dtype=np.float32) * 0.02).astype(np.float16)
    header: dict[str, dict[str, object]] = {}
    at = 0
    for name, rows, columns in _tensors(shape):
        size = 2 * rows * columns
        header[name] = {
            "dtype": "F16",
            "shape": [rows, columns] if columns > 1 else [rows],
            "data_offsets": [at, at + size],
        }
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for number, (_, rows, columns) in enumerate(_tensors(shape)):
            if columns == 1:
                file.write(np.ones(rows, dtype=np.float16).tobytes())
                continue
            left, start = rows * columns, (number * 1_000_003) % _BLOCK
            while left:
                taken = min(left, _BLOCK)
                file.write(block[start : start + taken].tobytes())
                left -= taken
    (folder / "config.json").write_text(json.dumps(config_of(shape)))
    (folder / "tokenizer.model").write_bytes(tokenizer(shape.vocab))
    settings = {"add_bos_token": False, "add_prefix_space": False, "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def words(count: int, *, seed: int = 1) -> str:
    """Return so many words of no language, the same for a seed."""
    draw = random.Random(seed)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    known = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    return " ".join(draw.choices(known, k=count))


@functools.cache
def tokenizer(vocab: int) -> bytes:
    """Return a SentencePiece model of so many pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words(40, seed=seed) for seed in range(400)),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab,
        byte_fallback=True,
        user_defined_symbols=["<|user|>", "<|assistant|>", "<|end|>"],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return model.getvalue()


def _tensors(shape: TinyLlama) -> Iterator[tuple[str, int, int]]:
    """Yield name, rows and columns of every tensor; one column for a vector."""
    keys = shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", shape.vocab, shape.hidden
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", shape.hidden, 1
        yield f"{at}.self_attn.q_proj.weight", shape.hidden, shape.hidden
        yield f"{at}.self_attn.k_proj.weight", keys, shape.hidden
        yield f"{at}.self_attn.v_proj.weight", keys, shape.hidden
        yield f"{at}.self_attn.o_proj.weight", shape.hidden, shape.hidden
        yield f"{at}.post_attention_layernorm.weight", shape.hidden, 1
        yield f"{at}.mlp.gate_proj.weight", shape.ffn, shape.hidden
        yield f"{at}.mlp.up_proj.weight", shape.ffn, shape.hidden
        yield f"{at}.mlp.down_proj.weight", shape.hidden, shape.ffn
    yield "model.norm.weight", shape.hidden, 1
