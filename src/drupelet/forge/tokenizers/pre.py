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


def pre_tokenizer_name(
    steps: Mapping[str, Any] | None, *, ignore_merges: bool, normalizer: Mapping[str, Any] | None, where: str
) -> str:
    """Return llama.cpp's name for a pre-tokenizer, or raise `Unsupported`."""
    if (normalizer or {}).get("type") not in _NORMALIZERS:
        said = str((normalizer or {}).get("type"))[:40]
        raise Unsupported(f"a tokenizer that normalizes texts by {said!r}", where=where, fix="only NFC is known")
    known = NAMES.get((tuple(_steps(steps, where)), ignore_merges))
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
