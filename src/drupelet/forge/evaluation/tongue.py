"""Whether a file speaks the checkpoint's language: tokens, chat template, and how a text begins and ends.

A wrong tokenizer changes no logit, so no distance sees it; it asks the model in another language. So what the running
file says of a text is compared with what the checkpoint's own tokenizer and template say, computed here without the
converter: the tokenizer's own library, and the template rendered by Jinja as its authors do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drupelet.core.errors import BadInput
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.runners.port import Messages, Session
from drupelet.forge.tokenizers import Tokenizer, open_tokenizer
from drupelet.forge.tokenizers.special import chat_template
from drupelet.forge.tokenizers.template import render

PROBES = (
    "Hello, world!",
    "  two spaces,\ttab\nand a new line\n",
    "Preis: 3,20 \u20ac; caf\u00e9 \u00e0 la carte",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d \U0001f353",
    "1234567890 + 42 = x_1",
)
"""Texts that every tokenizer must split as its checkpoint does, beside the recipe's own: numbers, spaces, scripts."""
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What the checkpoint's template and tokenizer make of a conversation; no tokens where the tokenizer is unknown."""

    messages: Messages
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tongue:
    """What the checkpoint says; None and empty where it cannot be computed here."""

    tokens: Mapping[str, tuple[int, ...]]
    """Text -> its tokens, without begin token and markers."""
    begins: bool | None
    """Whether a text is given a begin token; None where it cannot be told."""
    bos: str
    eos: str
    rendered: tuple[Rendered, ...]
    notes: tuple[str, ...]


def tongue_of(checkpoint: Checkpoint, texts: Sequence[str]) -> Tongue:
    """Return what the checkpoint says of `texts` and the probes. Raises nothing: what is unknown is a note."""
    notes: list[str] = []
    tokenizer: Tokenizer | None = None
    try:
        tokenizer = open_tokenizer(checkpoint)
    except BadInput as error:
        notes.append(f"tokens were not compared with the tokenizer's: {error.what}")
    tokens = {} if tokenizer is None else {text: tuple(tokenizer.encode(text)) for text in (*texts, *PROBES)}
    messages: list[Messages] = [[{"role": "user", "content": text}] for text in texts[:4]]
    first = texts[0] if texts else PROBES[0]
    turns = ("user", "assistant", "user")
    messages.append([{"role": role, "content": f"{first} {index}"} for index, role in enumerate(turns)])
    rendered, note = _rendered(checkpoint, messages, tokenizer)
    return Tongue(
        tokens=tokens,
        begins=None if tokenizer is None else tokenizer.vocabulary.add_bos,
        bos=_special(checkpoint, tokenizer, "bos"),
        eos=_special(checkpoint, tokenizer, "eos"),
        rendered=rendered,
        notes=(*notes, *([note] if note else [])),
    )


def tongue_findings(tongue: Tongue, session: Session) -> list[str]:
    """Return where the running file says something else, at most one finding of each sort."""
    return [
        *_token_findings(tongue, session),
        *_special_findings(tongue, session),
        *_template_findings(tongue, session),
    ]


def _token_findings(tongue: Tongue, session: Session) -> list[str]:
    for text, expected in tongue.tokens.items():
        found = session.tokenize(text, special=False)
        if found is not None and tuple(found) != expected:
            how = f"{len(found)} tokens where the tokenizer makes {len(expected)}"
            return [f"tokens: it splits {_shown(text)} into {how}, or others"]
    return []


def _special_findings(tongue: Tongue, session: Session) -> list[str]:
    findings = []
    said = session.special_tokens()
    if said is not None:
        for what, found, expected in (("begin", said.bos, tongue.bos), ("end", said.eos, tongue.eos)):
            if expected and found is not None and found != expected:
                findings.append(f"tokens: its {what} token is {found!r}, the checkpoint's is {expected!r}")
    text = next((text for text in tongue.tokens if text.strip() == text and "<" not in text), None)
    if text is not None and tongue.begins is not None:
        plain, marked = session.tokenize(text, special=False), session.tokenize(text, special=True)
        if plain is not None and marked is not None and (len(marked) > len(plain)) != tongue.begins:
            does = "adds a begin token" if len(marked) > len(plain) else "adds no begin token"
            findings.append(f"tokens: it {does} to a text, against the checkpoint's settings")
    return findings


def _template_findings(tongue: Tongue, session: Session) -> list[str]:
    for expected in tongue.rendered:
        found = session.render(expected.messages)
        if found is None:
            continue
        # The begin token may come from the template or from the tokenizer.
        if found.removeprefix(tongue.bos) != expected.text.removeprefix(tongue.bos):
            return [f"chat template: it makes {_shown(found)} where the checkpoint's makes {_shown(expected.text)}"]
        tokens, begin = session.tokenize(found), session.tokenize("") or []
        if tokens is not None and expected.tokens:
            ours, theirs = _without(begin, tokens), _without(begin, expected.tokens)
            if ours != theirs:
                how = f"{len(ours)} tokens where the checkpoint's tokenizer makes {len(theirs)}, or others"
                return [f"chat template: {_shown(found)} becomes {how}"]
    return []


def _without(begin: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Return tokens without what begins every text, once or twice."""
    found = list(tokens)
    while begin and found[: len(begin)] == list(begin):
        found = found[len(begin) :]
    return found


def _special(checkpoint: Checkpoint, tokenizer: Tokenizer | None, which: str) -> str:
    """Return the text of the begin or end token: the tokenizer's settings, else the config's number; empty if none."""
    named = _text_of(checkpoint.tokenizer_config.get(f"{which}_token"))
    if named or tokenizer is None:
        return named
    listed = checkpoint.fields.get(f"{which}_token_id")
    token = listed[0] if isinstance(listed, list) and listed else listed
    pieces = tokenizer.vocabulary.pieces
    return pieces[token] if isinstance(token, int) and 0 <= token < len(pieces) else ""


def _rendered(
    checkpoint: Checkpoint, conversations: Sequence[Messages], tokenizer: Tokenizer | None
) -> tuple[tuple[Rendered, ...], str | None]:
    """Return conversations as the template and the tokenizer have them, and why some or all are missing."""
    template = chat_template(checkpoint)
    if template is None:
        return (), "the chat template was not compared: the checkpoint has none"
    if "strftime_now" in template:
        return (), "the chat template was not compared: it writes today's date"
    markers = {key: _text_of(checkpoint.tokenizer_config.get(key)) for key in ("bos_token", "eos_token", "unk_token")}
    try:
        texts = render(template, conversations, markers=markers)
    except BadInput as error:
        return (), f"the chat template was not compared: {error.what}"
    found = tuple(
        Rendered(messages=messages, text=text, tokens=() if tokenizer is None else tuple(tokenizer.encode(text)))
        for messages, text in zip(conversations, texts, strict=True)
        if text is not None
    )
    missing = len(conversations) - len(found)
    return found, f"the chat template refuses {missing} of the conversations it was tried on" if missing else None


def _text_of(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 3]}...")
