"""Settings files: TOML, bounded, typed; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from drupelet.core.errors import BadInput, NotFound
from drupelet.wire.fields import in_words

SETTINGS_BYTES_MAX = 256 * 1024


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a settings file."""


S = TypeVar("S", bound=Section)


def read_settings(kind: type[S], path: Path, *, error: type[BadInput], fix: str, convert: Convert | None = None) -> S:
    """Read and parse a file. Raises `NotFound` with `fix`, or `error` saying which key is wrong and what would do."""
    try:
        with path.open("rb") as file:
            text = file.read(SETTINGS_BYTES_MAX + 1)
    except FileNotFoundError as missing:
        raise NotFound("there is no such configuration file", where=str(path), fix=fix) from missing
    except OSError as broken:
        raise error(f"cannot be read: {broken.strerror}", where=str(path)) from broken
    if len(text) > SETTINGS_BYTES_MAX:
        raise error(f"larger than {SETTINGS_BYTES_MAX} bytes", where=str(path))
    return parse_settings(kind, text, where=str(path), error=error, convert=convert)


def parse_settings(
    kind: type[S], text: bytes, *, where: str, error: type[BadInput], convert: Convert | None = None
) -> S:
    """Return the settings in `text`; `convert` makes values of types that TOML does not have."""
    try:
        table = tomllib.loads(text.decode())
    except UnicodeDecodeError as broken:
        raise error(f"not UTF-8 at byte {broken.start}", where=where) from broken
    except (tomllib.TOMLDecodeError, RecursionError) as broken:
        raise error(f"not TOML: {broken}", where=where) from broken
    _refuse_unknown(table, kind, where=where, prefix="", error=error)
    try:
        return msgspec.convert(table, kind, dec_hook=convert)
    except msgspec.ValidationError as broken:
        raise error(in_words(broken), where=where) from broken


Convert = Callable[[type, Any], Any]


def _refuse_unknown(
    table: dict[str, Any], kind: type[Section], *, where: str, prefix: str, error: type[BadInput]
) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
            raise error(f"unknown setting {prefix}{key[:80]}", where=where, fix=fix)
        section = known[key]
        if isinstance(value, dict) and isinstance(section, type) and issubclass(section, Section):
            _refuse_unknown(value, section, where=where, prefix=f"{prefix}{key}.", error=error)
