"""How a BPE tokenizer cuts texts before it merges, and llama.cpp's name for it.

llama.cpp has the ways of cutting built in and knows them by name. Its own converter tells them apart by a digest of one
text's tokens, which knows published vocabularies only. Here the cutting itself is compared: the steps that
`tokenizer.json` writes down, with the patterns it writes. So a vocabulary of one's own is known too, as long as it cuts
like one of these; another way of cutting is refused, because llama.cpp would silently split texts differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupelet.forge.errors import CheckpointBad, Unsupported

Step = tuple[object, ...]

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = rf"{_ENGLISH}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}{_REST}"
QWEN2 = rf"{_ENGLISH}|{_LEAD}\p{{L}}+|\p{{N}}{_REST}"
TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}{_REST_SLASH}"
GPT4O = rf"{_LEAD}{_UPPER}*{_LOWER}+{_ENGLISH}?|{_LEAD}{_UPPER}+{_LOWER}*{_ENGLISH}?|\p{{N}}{{1,3}}{_REST_SLASH}"

_BYTES: Step = ("bytes", False)
_GPT2: Step = ("bytes", True)
_DIGITS: Step = ("digits",)

NAMES: Mapping[tuple[tuple[Step, ...], bool], str] = {
    ((("split", LLAMA3), _BYTES), True): "llama-bpe",
    ((("split", LLAMA3), _BYTES), False): "dbrx",
    ((("split", QWEN2), _BYTES), False): "qwen2",
    ((("split", TEKKEN), _BYTES), True): "tekken",
    ((("split", GPT4O), _BYTES), False): "gpt-4o",
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
}
"""(steps, whether whole words are looked up before merging) -> llama.cpp's name."""
_NORMALIZERS = (None, "NFC")
_SPACE = "\u2581"

Json = Mapping[str, Any]


def known_steps(
    pre_tokenizer: Json | None, *, ignore_merges: bool, normalizer: Json | None, where: str
) -> tuple[str, Json | None, Json]:
    """Return llama.cpp's name for how a byte-level BPE cuts, and its normalizer and pre-tokenizer written anew.

    Raises `Unsupported` for steps that llama.cpp has not.
    """
    kind = (normalizer or {}).get("type")
    if kind not in _NORMALIZERS:
        said = str(kind)[:40]
        raise Unsupported(f"a tokenizer that normalizes texts by {said!r}", where=where, fix="only NFC is known")
    steps = _steps(pre_tokenizer, where)
    name = pre_tokenizer_name(steps, ignore_merges=ignore_merges, where=where)
    written = {"type": "Sequence", "pretokenizers": [_written(step) for step in steps]}
    return name, None if kind is None else {"type": kind}, written


def _written(step: Step) -> Json:
    match step:
        case ("split", str() as pattern):
            return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        case ("digits",):
            return {"type": "Digits", "individual_digits": True}
        case ("bytes", bool() as use_regex):
            return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": use_regex}
    raise ValueError(f"no step: {step}")  # `NAMES` holds no others


def known_spaces(pre_tokenizer: Json | None, normalizer: Json | None, *, where: str) -> tuple[bool, Json]:
    """Return whether a SentencePiece tokenizer in json puts a space before a text, and a normalizer that does it all.

    Hugging Face writes the same in several ways. Raises `Unsupported` for another treatment of spaces than
    SentencePiece's: every space becomes U+2581, and one is put before the text or not.
    """
    prepends = False
    for step in (*_flat(normalizer, "normalizers"), *_flat(pre_tokenizer, "pretokenizers")):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prepends = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                pass
            case {"type": "Metaspace", "replacement": "\u2581"}:
                prepends = prepends or step.get("prepend_scheme", "always") != "never"
            case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
                pass  # there is no space left to split at
            case _:
                said = str(step.get("type"))[:40]
                raise Unsupported(f"a SentencePiece tokenizer with the step {said!r}", where=where)
    steps: list[Json] = [{"type": "Prepend", "prepend": _SPACE}] if prepends else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    return prepends, {"type": "Sequence", "normalizers": steps}


def _flat(value: Json | None, key: str) -> list[Json]:
    """Return the steps of a sequence, or the one step there is."""
    if value is None:
        return []
    inner = value.get(key) if value.get("type") == "Sequence" else None
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else [value]


def pre_tokenizer_name(steps: list[Step], *, ignore_merges: bool, where: str) -> str:
    """Return llama.cpp's name for steps in their comparable form, or raise `Unsupported`."""
    known = NAMES.get((tuple(steps), ignore_merges))
    if known is None:
        raise Unsupported(
            "llama.cpp would split texts in another way than this tokenizer: its pre-tokenizer is none of those known",
            where=where,
            fix=f"known: {', '.join(NAMES.values())}; train with one of them, or use the llama.cpp toolchain",
        )
    return known


def _steps(value: Mapping[str, Any] | None, where: str) -> list[Step]:
    """Return the steps in a form that can be compared: what changes nothing is left out."""
    if value is None:
        return []
    kind = value.get("type")
    if kind == "Sequence":
        inner = value.get("pretokenizers")
        if not isinstance(inner, list) or len(inner) > 16 or not all(isinstance(one, dict) for one in inner):
            raise CheckpointBad("the pre-tokenizer's steps are no list", where=where)
        return [step for one in inner for step in _steps(one, where)]
    if kind == "ByteLevel" and not value.get("add_prefix_space"):
        return [("bytes", value.get("use_regex", True) is True)]
    if kind == "Digits" and value.get("individual_digits") is True:
        return [_DIGITS]
    if kind == "Split":
        pattern = value.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        # Keeping what matches and removing what does not are the same where everything matches.
        how = (value.get("behavior"), value.get("invert") is True)
        if how in (("Isolated", False), ("Removed", True)) and isinstance(regex, str):
            return [("split", regex)]
    return [("other", str(kind)[:40])]
