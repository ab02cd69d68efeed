"""Every logit of every position, to compare a quantized model with its reference (KL divergence, top-1 agreement).

The server gives only the most likely tokens as JSON, so this calls llama.cpp's C functions, which the `xllamacpp`
library exports, through ctypes, in a process of its own: `python -m drupelet.engine.logits JSON`.

The trap is the C structs, which grow from version to version. Parameters are therefore handed around as opaque blocks
larger than any version's: the functions that return them write their own size, and the functions that take them read
their own size, because each is its function's only argument in memory (System V x86-64 copies it to the stack, AArch64
passes a pointer to a copy). Only the first fields of `llama_context_params` and the fields of `llama_batch` are
touched; `tests/engine/test_logits.py` holds them against the server's own probabilities for the pinned version.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from drupelet.core.errors import BadInput
from drupelet.core.states import ExitReason
from drupelet.engine.spec import Exit, StartFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOGITS_BYTES_MAX = 4 << 30
"""Disk for one model's logits: 4 bytes a token of the vocabulary and position."""
SEQUENCE_TOKENS_MAX = 4096
TIMEOUT_MS = 1_800_000
"""Half an hour: a 3B model reads about 20 tokens a second on a slow machine, so some 36,000 tokens."""
_STRUCT_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """A file of float32 logits: sequence after sequence, position after position, `vocab` numbers each."""

    path: Path
    lengths: tuple[int, ...]
    """Positions (tokens) of each sequence."""
    vocab: int

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield one (positions, vocab) array a sequence; row i predicts token i + 1."""
        import numpy as np

        with self.path.open("rb") as file:
            for length in self.lengths:
                flat = np.fromfile(file, dtype=np.float32, count=length * self.vocab)
                if flat.size != length * self.vocab:
                    raise BadInput("the logits file is cut short", where=str(self.path), fix="delete it and run again")
                yield flat.reshape(length, self.vocab)


def compute(
    model: Path,
    sequences: Sequence[Sequence[int]],
    out: Path,
    *,
    threads: int = 1,
    adapters: Sequence[Path] = (),
    timeout_ms: int = TIMEOUT_MS,
) -> Logits:
    """Write the logits of `model` (a GGUF) for each token sequence to `out` and return how to read them.

    `adapters` (LoRA as GGUF) are applied to it, each whole.

    Raises `StartFailed` if the model does not load or run, `BadInput` if a sequence is empty or too long.
    """
    for index, sequence in enumerate(sequences):
        if not 1 <= len(sequence) <= SEQUENCE_TOKENS_MAX:
            fix = f"use 1 to {SEQUENCE_TOKENS_MAX}"
            raise BadInput(f"evaluation text {index + 1} has {len(sequence)} tokens", where=str(model), fix=fix)
    job = {"model": str(model), "out": str(out), "threads": threads, "adapters": [str(path) for path in adapters]}
    command = [sys.executable, "-m", "drupelet.engine.logits", json.dumps(job)]
    text = json.dumps([list(sequence) for sequence in sequences])
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout_ms / 1000, check=False
        )
    except subprocess.TimeoutExpired:
        ended = Exit(reason=ExitReason.HUNG, words=f"no logits within {timeout_ms} ms")
        raise StartFailed(ended, where=str(model)) from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word why"])[-1][:300]
        reason = ExitReason.LOAD_FAILED if done.returncode > 0 else ExitReason.SIGNALLED
        raise StartFailed(Exit(reason=reason, words=f"cannot compute logits: {said}"), where=str(model))
    vocab = int(json.loads(done.stdout)["vocab"])
    return Logits(path=out, lengths=tuple(len(sequence) for sequence in sequences), vocab=vocab)


class _Opaque(ctypes.Structure):
    """A parameter struct, seen as 32-bit words; only its first words have meaning here."""

    _fields_ = (("words", ctypes.c_uint32 * (_STRUCT_BYTES // 4)), ("align", ctypes.c_uint64))


class _Batch(ctypes.Structure):
    """`llama_batch`: the tokens of one call, where they belong and whose logits are wanted."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def library() -> ctypes.CDLL:
    """Open the shared object inside `xllamacpp` without importing the package, and declare what is used of it."""
    spec = importlib.util.find_spec("xllamacpp")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for folder in folders for path in Path(folder).glob("xllamacpp*.so")]
    if not found:
        raise SystemExit("the inference library xllamacpp is not installed")
    lib = ctypes.CDLL(str(found[0]))
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("llama_log_set", None, [_LOG_CALLBACK, pointer]),
        ("llama_backend_init", None, []),
        ("llama_model_default_params", _Opaque, []),
        ("llama_context_default_params", _Opaque, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Opaque]),
        ("llama_init_from_model", pointer, [pointer, _Opaque]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", integer, [pointer]),
        ("llama_set_n_threads", None, [pointer, integer, integer]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
        ("llama_batch_init", _Batch, [integer, integer, integer]),
        ("llama_batch_free", None, [_Batch]),
        ("llama_decode", integer, [pointer, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, integer]),
        ("llama_adapter_lora_init", pointer, [pointer, ctypes.c_char_p]),
        ("llama_set_adapters_lora", integer, [pointer, pointer, ctypes.c_size_t, pointer]),
        ("llama_free", None, [pointer]),
        ("llama_model_free", None, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class _Model:
    """A loaded model with one context, for as long as this process lives."""

    def __init__(self, path: str, *, context_tokens: int, threads: int) -> None:
        self._lib = lib = library()
        complaints: list[str] = []
        self._log = _LOG_CALLBACK(lambda _level, text, _data: complaints.append(text.decode("utf-8", "replace")))
        lib.llama_log_set(self._log, None)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self._model:
            said = next((line for line in complaints if "error" in line), "no word why")
            raise SystemExit(f"the model does not load: {said.strip()}")
        complaints.clear()
        self.vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))
        params = lib.llama_context_default_params()
        params.words[0] = params.words[1] = params.words[2] = context_tokens  # n_ctx, n_batch, n_ubatch
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise SystemExit("no memory for the model's context")
        lib.llama_set_n_threads(self._context, threads, threads)
        self._batch = lib.llama_batch_init(context_tokens, 0, 1)

    def apply(self, adapters: Sequence[str]) -> None:
        """Apply LoRA adapters, each whole. They are freed with the model."""
        lib = self._lib
        handles = [lib.llama_adapter_lora_init(self._model, path.encode()) for path in adapters]
        for path, handle in zip(adapters, handles, strict=True):
            if not handle:
                raise SystemExit(f"the adapter {path} does not fit the model")
        if handles:
            count = len(handles)
            pointers, scales = (ctypes.c_void_p * count)(*handles), (ctypes.c_float * count)(*[1.0] * count)
            if lib.llama_set_adapters_lora(self._context, pointers, count, scales) != 0:
                raise SystemExit("the adapters cannot be applied")

    def write(self, sequence: list[int], out: IO[bytes]) -> None:
        """Append the logits of every position of `sequence` to `out`."""
        lib, batch = self._lib, self._batch
        if any(not 0 <= token < self.vocab for token in sequence):
            raise SystemExit(f"a token is outside the vocabulary of {self.vocab}")
        batch.n_tokens = len(sequence)
        for index, token in enumerate(sequence):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = 1
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        if (status := lib.llama_decode(self._context, batch)) != 0:
            raise SystemExit(f"llama.cpp could not read a sequence of {len(sequence)} tokens (status {status})")
        for index in range(len(sequence)):
            out.write(ctypes.string_at(lib.llama_get_logits_ith(self._context, index), self.vocab * 4))

    def close(self) -> None:
        """Free what the library holds."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)


def main() -> None:
    """Read the job from the command line and the sequences from standard input."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    sequences: list[list[int]] = json.load(sys.stdin)
    longest = max(map(len, sequences), default=1)
    context_tokens = max(64, -(-longest // 32) * 32)
    model = _Model(job["model"], context_tokens=context_tokens, threads=job["threads"])
    model.apply(job["adapters"])
    with closing(model), Path(job["out"]).open("wb") as out:
        needed = 4 * model.vocab * sum(map(len, sequences))
        if needed > LOGITS_BYTES_MAX:
            raise SystemExit(f"logits would take {needed >> 20} MiB; use fewer or shorter evaluation texts")
        for sequence in sequences:
            model.write(sequence, out)
    sys.stdout.write(json.dumps({"vocab": model.vocab}))


if __name__ == "__main__":
    main()
