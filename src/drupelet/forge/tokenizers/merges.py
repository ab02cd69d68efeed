"""Byte-level BPE tokenizers, as Llama 3, Qwen, Phi-4 and SmolLM have: tokens and merges from `tokenizer.json`."""

from __future__ import annotations

from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.tokenizers.fast import FastFile, FastTokenizer
from drupelet.forge.tokenizers.port import PieceType, Vocabulary
from drupelet.forge.tokenizers.pre import known_steps
from drupelet.forge.tokenizers.special import added_tokens, chat_template, hold_together, put_around, special_tokens

_SPACE = chr(ord(" ") + 256)
"""A space inside a merge, as the byte alphabet of GPT-2 writes it."""


def read_merges(checkpoint: Checkpoint, fast: FastFile) -> FastTokenizer:
    """Return the tokenizer, padded to the size of the embedding.

    Raises `CheckpointBad` for ids past it, `Unsupported` for a pre-tokenizer that llama.cpp has not.
    """
    where = str(fast.path)
    pre, normalizer, pre_tokenizer = known_steps(
        fast.pre_tokenizer, ignore_merges=fast.ignore_merges, normalizer=fast.normalizer, where=where
    )
    size = checkpoint.shape.vocab
    known = fast.texts(size)
    pieces = [known.get(token, f"[PAD{token}]") for token in range(size)]
    types = [PieceType.NORMAL if token in known else PieceType.UNUSED for token in range(size)]
    added = added_tokens(checkpoint, fast.added)
    hold_together(added, known, where=str(checkpoint.folder))
    for one in added:
        pieces[one.id], types[one.id] = one.piece, one.type
    named = {one.content: one.id for one in added}
    special = special_tokens(checkpoint, pieces, named=named, own={})
    begin, end = put_around(special, named, begins=fast.begins, ends=fast.ends, where=where)
    vocabulary = Vocabulary(
        model="gpt2",
        pre=pre,
        pieces=tuple(pieces),
        types=tuple(types),
        merges=tuple(" ".join(part.replace(" ", _SPACE) for part in merge) for merge in fast.merges),
        special=special,
        add_bos=begin,
        add_eos=end,
        chat_template=chat_template(checkpoint),
    )
    return fast.run(vocabulary, added, normalizer=normalizer, pre_tokenizer=pre_tokenizer)
