"""A SentencePiece tokenizer as GGUF wants it: pieces, scores, types, special tokens, template.

Chat markers must become the very token ids that training used, or a fluent answer goes to the wrong question. So the
vocabulary keeps SentencePiece's order, and the evaluation compares the server's tokens with SentencePiece's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sentencepiece

from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.spm import BPE, PieceType, SpmModel, parse_spm

TEMPLATE_LENGTH_MAX = 100_000
_ADDED_SCORE = -1000.0
"""Below every learned score: an added token is matched whole, never merged into being."""
_UNUSED_SCORE = -10_000.0
_SPACE = "\u2581"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """One entry a token in each list, in the order of ids."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[PieceType, ...]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None


def load_processor(checkpoint: Checkpoint) -> sentencepiece.SentencePieceProcessor:
    """Return SentencePiece's own tokenizer of the checkpoint."""
    if checkpoint.tokenizer is None:
        raise Unsupported("there is no SentencePiece tokenizer", where=str(checkpoint.folder))
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.Load(str(checkpoint.tokenizer))
    except (RuntimeError, OSError) as error:
        raise CheckpointBad("not a SentencePiece model", where=str(checkpoint.tokenizer)) from error
    return processor


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """Return the checkpoint's vocabulary, padded to the size of its embedding."""
    config = checkpoint.known()
    where, settings = str(checkpoint.tokenizer), checkpoint.tokenizer_config
    model = _model(checkpoint)
    size, known = config.vocab_size, len(model.pieces)
    if known > size:
        what = f"the tokenizer has {known} tokens and the embedding only {size} rows"
        raise CheckpointBad(what, where=where, fix="tokenizer and weights belong to different models")
    pieces = [piece.text for piece in model.pieces] + [f"[PAD{token}]" for token in range(known, size)]
    scores = [piece.score for piece in model.pieces] + [_UNUSED_SCORE] * (size - known)
    types = [piece.type for piece in model.pieces] + [PieceType.UNUSED] * (size - known)
    _apply_added(pieces, scores, types, known=known, settings=settings, where=str(checkpoint.folder))
    return Vocabulary(
        pieces=tuple(pieces),
        scores=tuple(scores),
        types=tuple(types),
        bos=_special("bos", config.bos_token_id, model.bos, size, where),
        eos=_special("eos", config.eos_ids[0] if config.eos_ids else None, model.eos, size, where),
        unknown=_special("unk", None, model.unk, size, where),
        padding=_special("pad", config.pad_token_id, model.pad, size, where),
        add_bos=_flag(settings, "add_bos_token", default=True, where=where),
        add_eos=_flag(settings, "add_eos_token", default=False, where=where),
        add_space_prefix=_flag(settings, "add_prefix_space", default=model.add_dummy_prefix, where=where),
        chat_template=_template(settings, where),
    )


def _model(checkpoint: Checkpoint) -> SpmModel:
    if checkpoint.tokenizer is None:
        raise Unsupported("there is no SentencePiece tokenizer", where=str(checkpoint.folder))
    where = str(checkpoint.tokenizer)
    try:
        model = parse_spm(checkpoint.tokenizer.read_bytes(), where=where)
    except OSError as error:
        raise CheckpointBad(f"cannot be read: {error.strerror}", where=where) from error
    if model.model_type != BPE:
        fix = "only SentencePiece models of the kind BPE are supported"
        raise Unsupported("llama.cpp would split texts in another way than this tokenizer", where=where, fix=fix)
    if not any(piece.type is PieceType.BYTE for piece in model.pieces):
        fix = "train the tokenizer with byte_fallback=True"
        raise Unsupported("the tokenizer has no byte tokens, without which llama.cpp fails", where=where, fix=fix)
    return model


def _apply_added(
    pieces: list[str],
    scores: list[float],
    types: list[PieceType],
    *,
    known: int,
    settings: dict[str, Any],
    where: str,
) -> None:
    """Overlay `added_tokens_decoder`: markers get their text and type, whether SentencePiece knew them or not."""
    added = settings.get("added_tokens_decoder", {})
    if not isinstance(added, dict):
        raise CheckpointBad("added_tokens_decoder is not an object", where=where)
    for key, entry in added.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not key.isdecimal() or not isinstance(content, str) or not content:
            raise CheckpointBad(f"added token {key[:40]!r} has no content", where=where)
        token = int(key)
        if token >= len(pieces):
            what = f"added token {content[:40]!r} has the id {token} and the embedding only {len(pieces)} rows"
            raise CheckpointBad(what, where=where)
        if types[token] in (PieceType.UNKNOWN, PieceType.BYTE):
            continue
        if token < known and pieces[token] != content:
            what = f"token {token} is {pieces[token][:40]!r} and tokenizer_config.json calls it {content[:40]!r}"
            raise CheckpointBad(what, where=where, fix="the files belong to different models")
        special = bool(entry.get("special"))
        pieces[token] = content if special else content.replace(_SPACE, " ")
        scores[token] = _ADDED_SCORE
        types[token] = PieceType.CONTROL if special else PieceType.USER_DEFINED


def _special(name: str, configured: int | None, own: int, size: int, where: str) -> int | None:
    token = configured if configured is not None else own
    if token < 0:
        return None
    if token >= size:
        raise CheckpointBad(f"the {name} token is {token} and there are only {size}", where=where)
    return token


def _flag(settings: dict[str, Any], key: str, *, default: bool, where: str) -> bool:
    value = settings.get(key, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointBad(f"{key} is neither true nor false", where=where)
    return value


def _template(settings: dict[str, Any], where: str) -> str | None:
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and (not isinstance(template, str) or len(template) > TEMPLATE_LENGTH_MAX):
        raise CheckpointBad("chat_template is no text or too long", where=where)
    return template
