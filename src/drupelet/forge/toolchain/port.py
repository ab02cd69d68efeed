"""What the forge asks of llama.cpp's tools, whoever brings them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from drupelet.core.names import Digest

Percent = Callable[[int], None]
"""Called with how much of the work is done, 0 to 100."""


class Toolchain(Protocol):
    """Converters and quantizers. Same input, same bytes.

    Each writes `out`, which is whole only once it returns. All raise `ToolFailed` with the tool's last words when it
    ends badly; its log is then kept.
    """

    @property
    def version(self) -> str:
        """For people, such as `llama.cpp of llama-cpp-python 0.3.36`."""
        ...

    @property
    def converter_digest(self) -> Digest:
        """Of the converters: their source and the packages they run with."""
        ...

    def program_digest(self, program: str) -> Digest:
        """Of a compiled program, such as `llama-quantize`."""
        ...

    def convert(
        self, files: tuple[Path, ...], out: Path, *, kind: str, model_name: str, percent: Percent = ...
    ) -> None:
        """Write the checkpoint that consists of `files` as GGUF, in `f32`, `f16` or `bf16`."""
        ...

    def quantize(
        self, source: Path, out: Path, *, quantization: str, importance: Path | None = None, percent: Percent = ...
    ) -> tuple[str, ...]:
        """Quantize a GGUF; return what a person should know, such as tensors that had to stay in another type."""
        ...

    def importance(self, model: Path, text: Path, out: Path, *, context_tokens: int, chunks: int) -> None:
        """Write how much each column of each matrix matters when `model` reads `text`; 0 chunks means all of it."""
        ...

    def convert_adapter(self, adapter: Path, base: tuple[Path, ...], out: Path) -> None:
        """Write the LoRA adapter in folder `adapter` as GGUF, for the base that consists of the files `base`."""
        ...
