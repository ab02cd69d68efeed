"""Byte-level BPE tokenizers, as Llama 3, Qwen, Phi-4 and SmolLM have: tokens and merges from `tokenizer.json`."""

from __future__ import annotations

from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.tokenizers.fast import FastTokenizer
from drupelet.forge.tokenizers.port import PieceType, Vocabulary
from drupelet.forge.tokenizers.pre import pre_tokenizer_name
from drupelet.forge.tokenizers.special import added_tokens, chat_template, special_tokens

_SPACE = chr(ord(" ") + 256)
"""A space inside a merge, as the byte alphabet of GPT-2 writes it."""


def read_merges(checkpoint: Checkpoint, fast: FastTokenizer) -> FastTokenizer:
    """Return the tokenizer, padded to the size of the embedding.

    Raises `CheckpointBad` for ids past it, `Unsupported` for a pre-tokenizer that llama.cpp has not.
    """
    where = str(fast.path)
    pre = pre_tokenizer_name(
        fast.pre_tokenizer, ignore_merges=fast.ignore_merges, normalizer=fast.normalizer, where=where
    )
    size = checkpoint.shape.vocab
    known = fast.texts(size)
    pieces = [known.get(token, f"[PAD{token}]") for token in range(size)]
    types = [PieceType.NORMAL if token in known else PieceType.UNUSED for token in range(size)]
    added = added_tokens(checkpoint, fast.added)
    for one in added:
        pieces[one.id], types[one.id] = one.piece, one.type
    begin, end = fast.adds
    return fast.with_vocabulary(
        Vocabulary(
            model="gpt2",
            pre=pre,
            pieces=tuple(pieces),
            types=tuple(types),
            merges=tuple(" ".join(part.replace(" ", _SPACE) for part in merge) for merge in fast.merges),
            special=special_tokens(checkpoint, pieces, named={one.content: one.id for one in added}, own={}),
            add_bos=begin,
            add_eos=end,
            chat_template=chat_template(checkpoint),
        )
    )
