"""What GGUF holds of a tokenizer, and what a tokenizer must do for the forge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol

TOKENS_MAX = 1 << 20
SCORE_ADDED = -1000.0
"""Below every learned score: an added token is matched whole, never merged into being."""
SCORE_UNUSED = -10_000.0


class PieceType(IntEnum):
    """How llama.cpp treats a token; the numbers are SentencePiece's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """One entry a token in each list, in the order of ids."""

    model: Literal["llama", "gpt2"]
    """How llama.cpp splits: by scores like SentencePiece, or by merges of bytes like GPT-2."""
    pre: str
    """llama.cpp's name for how texts are cut before merging."""
    pieces: tuple[str, ...]
    types: tuple[PieceType, ...]
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)
    """`bos`, `eos`, `unk`, `pad` and so on -> id."""
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None
    chat_template: str | None = None


class Tokenizer(Protocol):
    """A checkpoint's own tokenizer, as the library it was made with splits texts."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What GGUF holds of it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. Markers in it become their tokens; nothing is added before or after it."""
        ...
