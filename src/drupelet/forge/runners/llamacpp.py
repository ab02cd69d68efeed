"""GGUF files in the very child that serves them on a device."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from drupelet.engine.child import Child
from drupelet.engine.client import Answer
from drupelet.engine.logits import Logits, compute
from drupelet.engine.spec import ChildSpec
from drupelet.forge.runners.port import Messages, RunSpec, SpecialTokens

Result = TypeVar("Result")
ANSWER_MS_MAX = 1_800_000
"""Half an hour, as for logits: a prompt of thousands of tokens on a slow machine, or an emulated one."""


class LlamaSession:
    """Implements `Session`. The child is watched by an event loop in a thread that lives as long as the session."""

    def __init__(self, spec: ChildSpec, runtime_folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="drupelet-runner", daemon=True)
        self._thread.start()
        self._peak_bytes = 0
        try:
            self._child = self._run(Child.start(spec, runtime_folder=runtime_folder))
        except BaseException:
            self._end_loop()
            raise
        self._client = self._child.client(timeout_ms=ANSWER_MS_MAX)

    @property
    def start_ms(self) -> float:
        """From spawn to ready."""
        return self._child.start_ms

    def ask(self, messages: Messages, *, tokens_max: int) -> Answer:
        """Ask over the child's chat endpoint."""
        return self._client.chat(messages, tokens_max=tokens_max)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Ask the child's `/tokenize`."""
        return self._client.tokenize(text, special=special)

    def render(self, messages: Messages) -> str:
        """Ask the child's `/apply-template`."""
        return self._client.apply_template(messages)

    def special_tokens(self) -> SpecialTokens:
        """Ask the child's `/props`."""
        props = self._client.props()
        return SpecialTokens(bos=str(props.get("bos_token", "")), eos=str(props.get("eos_token", "")))

    def memory_bytes_peak(self) -> int:
        """Read the kernel's own high-water mark."""
        self._peak_bytes = max(self._peak_bytes, self._child.rss_bytes_peak())
        return self._peak_bytes

    def close(self) -> None:
        """Stop the child and its watch."""
        if self._thread.is_alive():
            self._run(self._child.stop())
            self._end_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt reaches this thread, not the loop's
            raise

    def _end_loop(self) -> None:
        async def _drain() -> None:
            # A start that was cancelled kills its child on its way out; its end is awaited here.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(_drain(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class LlamaCppRunner:
    """Implements `Runner` for `gguf`."""

    file_format: str = "gguf"
    """Or `gguf-lora`: the same child, with an adapter applied to its base."""

    @property
    def tool(self) -> str:
        """The library inside the child."""
        return f"xllamacpp {installed_version('xllamacpp')}"

    def start(self, spec: RunSpec, *, runtime_folder: Path) -> LlamaSession:
        """Start the child that a device would start."""
        child = ChildSpec(
            model=spec.model,
            alias=spec.alias,
            context_tokens=spec.context_tokens,
            threads=spec.threads,
            digest=spec.digest,
            adapters=spec.adapters,
        )
        return LlamaSession(child, runtime_folder)

    def logits(self, spec: RunSpec, sequences: Sequence[Sequence[int]], out: Path) -> Logits:
        """Compute them through the library's C functions, in a process of its own."""
        return compute(spec.model, sequences, out, threads=spec.threads, adapters=spec.adapters)
