"""What changes from one release to another: every field of the two manifests, in the order people ask.

A manifest is flattened to facts, `("variants", "q8_0", "size_bytes") -> 2200000`, with variants by name and prompts by
id, so that whatever a manifest learns to say later is compared without being named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from drupelet.wire.manifest import ReleaseManifest

Fact = tuple[str, ...]
ORDER = (
    "family", "version", "model", "summary", "variants", "context_tokens", "requires", "thermal", "budgets",
    "canonical_prompts", "feature_flags", "stages", "evaluation", "provenance", "attachments", "created_at_ms",
)  # fmt: skip
"""Sections in the order of a report; any other comes after them."""
_NAMED_BY = ("name", "id", "kind", "context_tokens")
"""What tells the elements of a list apart, tried in this order."""
SHOWN_CHARACTERS_MAX = 80
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. None: there is nothing on that side (an optional field then has its default)."""

    section: str
    item: str
    """The variant, prompt or setting; empty where the section is a single value."""
    field: str
    before: Any
    after: Any

    @property
    def name(self) -> str:
        """Section, item and field in one."""
        return " ".join(part for part in (self.section, self.item, self.field) if part)


def compare(before: ReleaseManifest, after: ReleaseManifest) -> tuple[Change, ...]:
    """Return every difference, in the order of `ORDER`; an added or removed variant or prompt is one of them."""
    old, new = facts(before), facts(after)
    old_items, new_items = _items(old), _items(new)
    changes = []
    for fact in sorted({*old, *new}, key=lambda fact: (_rank(fact[0]), fact)):
        whole = fact[:2]
        if len(fact) > 2 and (whole in old_items) != (whole in new_items):
            continue
        if old.get(fact) != new.get(fact):
            section, item, *field = (*fact, "")
            changes.append(
                Change(
                    section=section,
                    item=item,
                    field=" ".join(filter(None, field)),
                    before=old.get(fact),
                    after=new.get(fact),
                )
            )
    for section, item in sorted(old_items ^ new_items):
        changes.append(
            Change(
                section=section,
                item=item,
                field="",
                before=_gist(old, (section, item)),
                after=_gist(new, (section, item)),
            )
        )
    return tuple(sorted(changes, key=lambda change: (_rank(change.section), change.item, change.field)))


def facts(manifest: ReleaseManifest) -> dict[Fact, Any]:
    """Return the manifest as a flat table."""
    found: dict[Fact, Any] = {}
    document = msgspec.json.decode(msgspec.json.encode(manifest))
    document.pop("format")
    _flatten(document, (), found)
    return found


def _flatten(value: Any, at: Fact, found: dict[Fact, Any]) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _flatten(one, (*at, str(key)), found)
    elif isinstance(value, list) and (key := _key_of(value)):
        for one in value:
            _flatten({k: v for k, v in one.items() if k != key}, (*at, str(one[key])), found)
    elif value not in ("", [], None):
        found[at] = value


def _key_of(items: list[Any]) -> str:
    """Return the field that tells a list's tables apart, if they are tables and it does."""
    if not items or not all(isinstance(item, dict) for item in items):
        return ""
    for key in _NAMED_BY:
        names = [item.get(key) for item in items]
        if None not in names and len(set(map(str, names))) == len(names):
            return key
    return ""


def _items(table: Mapping[Fact, Any]) -> set[tuple[str, str]]:
    """Return the named things that consist of several facts: variants, prompts, attachments."""
    named = ("variants", "canonical_prompts", "attachments")
    return {(fact[0], fact[1]) for fact in table if fact[0] in named and len(fact) > 2}


def _gist(table: Mapping[Fact, Any], item: tuple[str, str]) -> Any:
    """Return what is most worth saying of a variant, prompt or attachment that only one side has."""
    inside = {fact[2:]: value for fact, value in table.items() if fact[:2] == item}
    if not inside:
        return None
    told = (("quantization",), ("size_bytes",), ("prompt",))
    return ", ".join(in_words(key[0], inside[key]) for key in told if key in inside) or "there"


def _rank(section: str) -> int:
    return ORDER.index(section) if section in ORDER else len(ORDER)


def in_words(field: str, value: Any) -> str:
    """Return a value as a person reads it; `field` is the fact's last word, which carries the unit."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("sha256:"):
        return value[:19]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field == "created_at_ms":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if (isinstance(value, int) and field.endswith("bytes")) or field.endswith("bytes_max"):
        return f"{value / _MIB:.1f} MiB" if value >= _MIB else f"{value / 1024:.1f} KiB"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(_brief(one) for one in value)[:SHOWN_CHARACTERS_MAX]
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."


def _brief(one: Any) -> str:
    return " ".join(str(value) for value in one.values()) if isinstance(one, dict) else str(one)


def by_how_much(change: Change) -> str:
    """Return `+3.2%` where both sides are numbers, `added` or `removed` where only one is there."""
    if change.before is None:
        return "added"
    if change.after is None:
        return "removed"
    both = (change.before, change.after)
    if change.name.endswith("_at_ms") or any(isinstance(v, bool) or not isinstance(v, int | float) for v in both):
        return ""
    return f"{(change.after - change.before) / change.before:+.1%}" if change.before else ""
