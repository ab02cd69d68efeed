"""Which tokens mean something: beginning, end, padding; markers and their types; the chat template.

The order of what is believed is llama.cpp's converter's: a name in `tokenizer_config.json` that `tokenizer.json` gives
an id, then the ids in `config.json`; last, what the SentencePiece model itself says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.tokenizers.port import PieceType

TEMPLATE_LENGTH_MAX = 100_000
KINDS = ("bos", "eos", "unk", "sep", "pad", "mask")
_SPACE = "\u2581"
_LIKE_CONTROL = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
# What llama.cpp takes for the end of an answer by its text alone (llama-vocab.cpp).
_ENDS_BY_TEXT = {
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>"),
}
_OPTIONS = ("single_word", "lstrip", "rstrip", "normalized")
_ENDS_MORE = ("eot", "eom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A token that was added to a learned vocabulary."""

    id: int
    content: str
    special: bool
    options: Mapping[str, bool] = field(default_factory=dict)
    """`lstrip` and the like, as the tokenizer's library wants them."""
    listed: bool = False
    """Whether `tokenizer.json` lists it."""

    @property
    def type(self) -> PieceType:
        """Control tokens are never shown; some are not marked as such by those who made them."""
        text = self.content
        like = text in _LIKE_CONTROL or (text.startswith("<unused") and text.endswith(">"))
        like = like or (text.startswith("<|") and text.endswith("|>"))
        like = like or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        return PieceType.CONTROL if self.special or like else PieceType.USER_DEFINED

    @property
    def piece(self) -> str:
        """As GGUF writes it: llama.cpp matches user-defined tokens in the text as people write it."""
        return self.content if self.type is PieceType.CONTROL else self.content.replace(_SPACE, " ")


def added_tokens(checkpoint: Checkpoint, listed: object) -> list[Added]:
    """Return the tokens that `tokenizer.json` (its `added_tokens`, in `listed`) and `tokenizer_config.json` add.

    Raises `CheckpointBad` for entries without an id or a text, or past the embedding's rows.
    """
    where = str(checkpoint.folder)
    decoder = checkpoint.tokenizer_config.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict) or not isinstance(listed, list):
        raise CheckpointBad("the list of added tokens is not one", where=where)
    entries: list[tuple[object, object, bool]] = [
        (entry.get("id") if isinstance(entry, dict) else None, entry, True) for entry in listed
    ]
    entries += [(int(key) if key.isdecimal() and len(key) < 9 else key, entry, False) for key, entry in decoder.items()]
    found = []
    for token, entry, is_listed in entries:
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise CheckpointBad(f"added token {str(token)[:40]!r} has no id", where=where)
        if not isinstance(content, str) or not content or not isinstance(entry, dict):
            raise CheckpointBad(f"added token {token} has no content", where=where)
        if token >= checkpoint.shape.vocab:
            what = (
                f"added token {content[:40]!r} has the id {token} and the embedding only {checkpoint.shape.vocab} rows"
            )
            raise CheckpointBad(what, where=where, fix="tokenizer and weights belong to different models")
        options = {name: entry.get(name) is True for name in _OPTIONS}
        special = bool(entry.get("special"))
        found.append(Added(id=token, content=content, special=special, options=options, listed=is_listed))
    return found


def hold_together(added: Sequence[Added], known: Mapping[int, str], *, where: str) -> None:
    """Raise `CheckpointBad` if an added token is called otherwise in the vocabulary, or elsewhere in the lists."""
    called = dict(known)
    for one in added:
        if called.setdefault(one.id, one.content) != one.content:
            what = (
                f"token {one.id} is {called[one.id][:40]!r} and the list of added tokens calls it {one.content[:40]!r}"
            )
            raise CheckpointBad(what, where=where, fix="the files belong to different models")


def special_tokens(
    checkpoint: Checkpoint, pieces: Sequence[str], *, named: Mapping[str, int], own: Mapping[str, int]
) -> dict[str, int]:
    """Return `bos`, `eos` and so on -> id. `named` are texts with ids to go by, `own` what the tokenizer itself says.

    Raises `CheckpointBad` for an id past the vocabulary.
    """
    found: dict[str, int] = {}
    for kind in KINDS:
        said = checkpoint.tokenizer_config.get(f"{kind}_token")
        text = said.get("content") if isinstance(said, dict) else said
        inner = checkpoint.fields.get("text_config")
        configured = checkpoint.fields.get(f"{kind}_token_id")
        if configured is None and isinstance(inner, dict):
            configured = inner.get(f"{kind}_token_id")
        if isinstance(configured, list):
            configured = configured[0] if configured else None
        by_name = named.get(text) if isinstance(text, str) else None
        token = next((one for one in (by_name, configured, own.get(kind)) if one is not None), None)
        if token is None or token == -1:
            continue
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < len(pieces):
            what = f"the {kind} token is {token!r} and there are only {len(pieces)}"
            raise CheckpointBad(what, where=str(checkpoint.folder))
        found[kind] = token
    return found | _more_ends(checkpoint, pieces, found.get("eos"))


def put_around(
    special: dict[str, int], named: Mapping[str, int], *, begins: str | None, ends: str | None, where: str
) -> tuple[bool, bool]:
    """Return whether a text is given its begin and its end token, as the tokenizer's post-processor says.

    Raises `Unsupported` where that puts other tokens there: llama.cpp adds `bos` and `eos` only. A checkpoint that
    names no such token is given the one that is put there.
    """
    for kind, text in (("bos", begins), ("eos", ends)):
        if text is None:
            continue
        token = named.get(text)
        if token is None:
            raise CheckpointBad(f"{text[:40]!r} is put around every text and is no token", where=where)
        if special.setdefault(kind, token) != token:
            what = f"a tokenizer that puts {text[:40]!r} around a text, which is not its {kind} token"
            raise Unsupported(what, where=where, fix="llama.cpp adds no other")
    return begins is not None, ends is not None


def _more_ends(checkpoint: Checkpoint, pieces: Sequence[str], eos: int | None) -> dict[str, int]:
    """Return the other tokens that end an answer, as `generation_config.json` lists them, but those that llama.cpp
    knows by their text."""
    where = str(checkpoint.folder / "generation_config.json")
    listed = checkpoint.generation.get("eos_token_id", [])
    listed = listed if isinstance(listed, list) else [listed]
    if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < len(pieces) for one in listed if one):
        raise CheckpointBad(f"eos_token_id {listed!r:.80} is not of this vocabulary", where=where)
    more = [one for one in dict.fromkeys(listed) if one not in (None, eos) and pieces[one] not in _ENDS_BY_TEXT]
    if len(more) > len(_ENDS_MORE):
        what = f"an answer may end with {len(more) + 1} different tokens and GGUF has room for {len(_ENDS_MORE) + 1}"
        raise Unsupported(what, where=where, fix="keep the ends that the chat template uses")
    return dict(zip(_ENDS_MORE, more, strict=False))


def flag(settings: Mapping[str, Any], key: str, *, default: bool, where: str) -> bool:
    """Return a setting that is true or false. Raises `CheckpointBad` if it is neither."""
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointBad(f"{key} is neither true nor false", where=where)
    return value


def chat_template(checkpoint: Checkpoint) -> str | None:
    """Return the checkpoint's chat template, of several the one named `default`."""
    template = checkpoint.tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and (not isinstance(template, str) or len(template) > TEMPLATE_LENGTH_MAX):
        raise CheckpointBad("chat_template is no text or too long", where=str(checkpoint.folder))
    return template
