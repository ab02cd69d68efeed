"""Where in a TOML or JSON text each value stands, so that a mistake can be shown where it was written.

The readers of the standard library (and msgspec) say what a text holds and forget where. This walks a text that such a
reader has already accepted, so it need not judge syntax, and notes for every path (`("variants", 0, "name")`) the line
and column at which its key, or the element of an array, begins. On a text that nobody accepted it finds less, never
raises, and always ends.
"""

from __future__ import annotations

import bisect
import json
import re
import tomllib
from collections.abc import Mapping
from typing import NamedTuple

Path = tuple[str | int, ...]
"""The way from the top of a document to a value: keys of tables and, from 0, places in arrays."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''(?s:.)*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'", re.S
)
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_JSON_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.S)
_JSON_SCALAR = re.compile(r"[^,\]}\s]*")
DEPTH_MAX = 64
"""Deeper values are not told apart: no file of ours is a tenth as deep."""


class Place(NamedTuple):
    """A place in a text, both from 1."""

    line: int
    column: int


def place_of(places: Mapping[Path, Place], path: Path) -> Place | None:
    """Return the place of `path`, or of the nearest thing around it that was written."""
    for length in range(len(path), 0, -1):
        if (found := places.get(path[:length])) is not None:
            return found
    return None


def toml_places(text: str) -> dict[Path, Place]:
    """Return the place of every key and array element of a TOML text."""
    return _Toml(text).walk()


def json_places(text: str) -> dict[Path, Place]:
    """Return the place of every key and array element of a JSON text."""
    return _Json(text).walk()


class _Walker:
    """A position in a text, and what was found so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Place] = {}
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def note(self, path: Path, offset: int) -> None:
        """Remember where `path` was first written."""
        line = bisect.bisect_right(self._lines, offset)
        self.places.setdefault(path, Place(line, offset - self._lines[line - 1] + 1))

    def take(self, pattern: re.Pattern[str]) -> str:
        """Return what matches here, and step over it."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def next_is(self, mark: str) -> bool:
        """Whether `mark` stands here; if so, step over it."""
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True


class _Toml(_Walker):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._arrays: dict[Path, int] = {}

    def walk(self) -> dict[Path, Place]:
        table: Path = ()
        self.take(_SPACE)
        while self.at < len(self.text):
            before, many = self.at, self.next_is("[[")
            if many or self.next_is("["):
                table = self._header(self._key(), many=many)
                self.take(re.compile(r"[ \t\]]*"))
            else:
                self._pair(table, depth=0)
            self.take(_SPACE)
            if self.at == before:  # nothing a reader accepts: do not stand still
                self.at += 1
        return self.places

    def _header(self, keys: list[tuple[str, int]], *, many: bool) -> Path:
        path: Path = ()
        for index, (key, offset) in enumerate(keys):
            path = (*path, key)
            last = index == len(keys) - 1
            if not last or not many:
                self.note(path, offset)
            if last and many:
                self._arrays[path] = self._arrays.get(path, 0) + 1
                self.note(path, offset)
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
                self.note(path, offset)
        return path

    def _key(self) -> list[tuple[str, int]]:
        """Return the parts of a key, `a."b.c".d`, each with its offset."""
        parts: list[tuple[str, int]] = []
        while True:
            self.take(_BLANK)
            offset = self.at
            written = self.take(_BARE) or self.take(_STRING)
            if not written:
                return parts
            parts.append((_plain(written), offset))
            self.take(_BLANK)
            if not self.next_is("."):
                return parts

    def _pair(self, table: Path, *, depth: int) -> None:
        path = table
        for key, offset in self._key():
            path = (*path, key)
            self.note(path, offset)
        self.take(_BLANK)
        if self.next_is("="):
            self.take(_BLANK)
            self._value(path, depth=depth)

    def _value(self, path: Path, *, depth: int) -> None:
        if depth < DEPTH_MAX and self.next_is("["):
            self._elements(path, depth=depth)
        elif depth < DEPTH_MAX and self.next_is("{"):
            self._inline(path, depth=depth)
        elif not self.take(_STRING):
            self.take(_SCALAR)

    def _elements(self, path: Path, *, depth: int) -> None:
        for index in range(len(self.text)):
            self.take(_SPACE)
            if self.next_is("]"):
                return
            before = self.at
            self.note((*path, index), self.at)
            self._value((*path, index), depth=depth + 1)
            self.take(_SPACE)
            self.next_is(",")
            if self.at == before:
                return

    def _inline(self, path: Path, *, depth: int) -> None:
        while True:
            self.take(_SPACE)
            if self.next_is("}"):
                return
            before = self.at
            self._pair(path, depth=depth + 1)
            self.take(_SPACE)
            self.next_is(",")
            if self.at == before:
                return


def _plain(written: str) -> str:
    """Return a key without its quotes and escapes."""
    if written[0] not in "\"'":
        return written
    try:
        return str(tomllib.loads(f"key = {written}")["key"])
    except tomllib.TOMLDecodeError:
        return written


class _Json(_Walker):
    def walk(self) -> dict[Path, Place]:
        self.take(_JSON_SPACE)
        self._value((), depth=0)
        return self.places

    def _value(self, path: Path, *, depth: int) -> None:
        if depth < DEPTH_MAX and self.next_is("["):
            self._many(path, "]", depth=depth)
        elif depth < DEPTH_MAX and self.next_is("{"):
            self._many(path, "}", depth=depth)
        elif self._string() is None:
            self.take(_JSON_SCALAR)

    def _many(self, path: Path, end: str, *, depth: int) -> None:
        for index in range(len(self.text)):
            self.take(_JSON_SPACE)
            if self.next_is(end):
                return
            before = self.at
            inner: Path = (*path, index)
            if end == "}":
                inner = (*path, self._string() or "")
                self.take(_JSON_SPACE)
                self.next_is(":")
                self.take(_JSON_SPACE)
            self.note(inner, before)
            self._value(inner, depth=depth + 1)
            self.take(_JSON_SPACE)
            self.next_is(",")
            if self.at == before:
                return

    def _string(self) -> str | None:
        quoted = self.take(_JSON_STRING)
        try:
            return str(json.loads(quoted)) if quoted else None
        except ValueError:
            return quoted
