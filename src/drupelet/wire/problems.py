"""Everything that is wrong with decoded data, not just the first thing, each with the way to where it is.

msgspec checks a document against its type and stops at the first mistake. Whoever mends a file wants them all, and
wants a misspelt key found even where the type would ignore it.
"""

from __future__ import annotations

import copy
import difflib
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from drupelet.wire.fields import in_words
from drupelet.wire.places import Path

Hook = Callable[[type, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: where, what, what to do. `unknown`: the key means nothing to this version."""

    path: Path
    what: str
    fix: str = ""
    unknown: bool = False


def written(path: Path) -> str:
    """Return a path as people write it, counting from 1: `variants[1].quality`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def did_you_mean(key: str, known: typing.Iterable[str]) -> str:
    """Return the nearest known key as advice, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"


def problems(value: Any, kind: Any, *, path: Path = (), hook: Hook | None = None) -> Iterator[Problem]:
    """Yield what keeps `value` from being a `kind`: unknown and missing keys, and values of a wrong type or range."""
    inner = _without_wrapping(kind)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
        found = list(_in_struct(value, inner, path=path, hook=hook))
    elif isinstance(value, list) and (item := _item_of(inner)) is not None:
        found = [p for index, one in enumerate(value) for p in problems(one, item, path=(*path, index), hook=hook)]
    elif isinstance(value, dict) and typing.get_origin(inner) is dict:
        item = typing.get_args(inner)[1]
        found = [p for key, one in value.items() for p in problems(one, item, path=(*path, key), hook=hook)]
    else:
        found = []
    yield from found
    if all(problem.unknown for problem in found):
        # The parts are good: what is left are lengths, and rules over several fields.
        try:
            msgspec.convert(_without(value, [p.path[len(path) :] for p in found]), kind, dec_hook=hook)
        except msgspec.ValidationError as error:
            said = in_words(error)
            yield Problem(path=path, what=f"{written(path)}: {said}" if path else said)
        except UnicodeEncodeError:
            yield Problem(path=path, what=f"{written(path)}: half a character, which is no text")  # JSON's "\ud800"


def _without(value: Any, unknown: list[Path]) -> Any:
    """Return a document without the keys that have been complained of already."""
    if not unknown:
        return value
    copied = copy.copy(value)
    for path in unknown:
        table = copied
        for part in path[:-1]:
            table[part] = table = copy.copy(table[part])
        del table[path[-1]]
    return copied


def _in_struct(
    value: dict[str, Any], kind: type[msgspec.Struct], *, path: Path, hook: Hook | None
) -> Iterator[Problem]:
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key, one in value.items():
        if key in known:
            yield from problems(one, hints[known[key].name], path=(*path, key), hook=hook)
        else:
            place = f" in {written(path)}" if path else ""
            yield Problem(
                path=(*path, key),
                what=f"unknown key {key[:80]!r}{place}",
                fix=did_you_mean(key, known),
                unknown=True,
            )
    for name, field in known.items():
        if field.required and name not in value:
            yield Problem(path=path, what=f"missing required field `{name}`{f' in {written(path)}' if path else ''}")


def _item_of(kind: Any) -> Any:
    """Return what an array of `kind` holds, or None if it is no array of one type."""
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return arguments[0]
    return None


def _without_wrapping(kind: Any) -> Any:
    """Return the type inside `Annotated[...]` and `... | None`."""
    while True:
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kind = next((part for part in typing.get_args(kind) if part is not type(None)), None)
        else:
            return kind
