"""A checkpoint's tokenizer: SentencePiece or byte-level BPE, as GGUF wants it and as its own library splits texts."""

from __future__ import annotations

from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import Unsupported
from drupelet.forge.tokenizers.fast import read_fast
from drupelet.forge.tokenizers.merges import read_merges
from drupelet.forge.tokenizers.pieces import read_converted, read_pieces
from drupelet.forge.tokenizers.port import PieceType, Tokenizer, Vocabulary

__all__ = ["PieceType", "Tokenizer", "Vocabulary", "open_tokenizer"]


def open_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the checkpoint's tokenizer. Raises `CheckpointBad`, or `Unsupported` for what llama.cpp has not."""
    if checkpoint.tokenizer is None:
        fix = "save its fast tokenizer (tokenizer.json) or its SentencePiece model (tokenizer.model) beside the weights"
        raise Unsupported("there is no tokenizer that can be read", where=str(checkpoint.folder), fix=fix)
    if checkpoint.tokenizer.name == "tokenizer.model":
        return read_pieces(checkpoint, checkpoint.tokenizer)
    fast = read_fast(checkpoint.tokenizer)
    return read_converted(checkpoint, fast) if fast.byte_fallback else read_merges(checkpoint, fast)
