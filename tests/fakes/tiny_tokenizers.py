"""Tokenizers of a few hundred tokens, of every kind that real checkpoints bring: byte-level BPE cut in each known way,
SentencePiece, and SentencePiece written as `tokenizer.json`."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from drupelet.forge.tokenizers import pre
from drupelet.forge.tokenizers.spm import parse_spm
from tests.fakes.tiny_checkpoint import tokenizer_bytes

CORPUS = (
    "When do you open on Sunday? We open at nine and close at six; don't be late, we'll wait 15 minutes.",
    "Where is the milk? The milk is in the fridge on the left, I'VE seen it.\n\nHow much is the coffee? 2.50 euros.",
    "Kann ich mit Karte zahlen? Ja, natürlich! Où est le café? Là-bas. 日本語のメニュー。 Привет, как дела?",
    "def price(items):\n    return sum(item.cost for item in items)  # total in cents: 12345\n",
)
NASTY = (
    "Hello, world! It's 12345 o'clock; I'LL pay €7.50…",
    "  leading and   inner    spaces \n\n\n and\ttabs\r\nlines  ",
    "naïve café ÜBER straße Ελληνικά кириллица 中文字符 한국어 עברית 🙂🚀",
    "x=1;y=22;z=333;w=4444 a.b/c\\d {json: [1,2,3]} ''' \"\"\" --- ===",
    "don't DON'T we've WE'VE he'd Macdonald's XMLHttpRequest camelCase ABCdef",
)
"""Texts on which ways of cutting differ. All are NFC: llama.cpp normalizes nothing."""

STEPS: dict[str, Any] = {
    "llama-bpe": (pre.LLAMA3, False),
    "dbrx": (pre.LLAMA3, False),
    "qwen2": (pre.QWEN2, False),
    "tekken": (pre.TEKKEN, False),
    "gpt-4o": (pre.GPT4O, False),
    "gpt-2": (None, True),
    "smollm": (None, True),
}


@functools.cache
def bpe_json(name: str, *, special: tuple[str, ...], bos: str = "", size: int = 480) -> str:
    """Return a `tokenizer.json` that cuts as llama.cpp's `name`; `special` are its markers, `bos` goes first."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    pattern, use_regex = STEPS[name]
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if name == "smollm" else []
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.post_processor = (
        processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
        if bos
        else processors.ByteLevel(trim_offsets=False)
    )
    return str(tokenizer.to_str(pretty=False))


def pieces_json(*, vocab: int = 352) -> str:
    """Return the SentencePiece model of `tiny_checkpoint` as a `tokenizer.json`, as Hugging Face converts it."""
    model = parse_spm(tokenizer_bytes(vocab=vocab))
    ids = {piece.text: token for token, piece in enumerate(model.pieces)}
    merges = []
    for token, piece in enumerate(model.pieces):
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if piece.type == 1 and left in ids and right in ids:
                merges.append((-piece.score, token, left, right))
    special = [token for token, piece in enumerate(model.pieces) if piece.type in (2, 3, 4)]
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [
                {"id": token, "content": model.pieces[token].text, "special": True, "normalized": False}
                | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
                for token in special
            ],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": ids,
                "merges": [[left, right] for _, _, left, right in sorted(merges)],
            },
        }
    )
