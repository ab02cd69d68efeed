"""Every value's line and column, and every mistake, not just the first."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.places import Path, json_places, place_of, toml_places
from drupelet.wire.problems import problems, written
from tests.wire.examples import manifest

TOML = '''\
# [not.a.table]
title = "a = [1, 2]" # b = 3
"quoted key".'and another' = 1
text = """
fake = 1
[fake]
"""
raw = \'\'\'
[[fake]] \'\'\'
list = [
  1, # one ]
  { a = 1, b = { c = 2 } },
  ["x", 'y'],
]
dotted.inner.leaf = 2026-01-01

[one.two]
x = 1
  [one.three]
  y = 2

[[many]]
name = "first"
[many.table]
z = 1
[[many]]
name = "second"
inline = [{ kind = "contains", value = "]}#" }, { kind = "equals", value = 'v' }]
[[many.below]]
deep = true
'''


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every way into a document, but the top."""
    inner = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return {path} - {()} | {found for key, one in inner for found in paths(one, (*path, key))}


def at(text: str, line: int, column: int) -> str:
    return text.splitlines()[line - 1][column - 1 :]


def test_everything_in_a_toml_file_is_found() -> None:
    found = toml_places(TOML)
    assert set(found) == paths(tomllib.loads(TOML))
    for path, begins in {
        ("title",): "title = ",
        ("quoted key",): '"quoted key"',
        ("quoted key", "and another"): "'and another'",
        ("list", 0): "1, #",
        ("list", 1, "b", "c"): "c = 2",
        ("list", 2, 1): "'y'",
        ("dotted", "inner", "leaf"): "leaf = 2026",
        ("one", "two", "x"): "x = 1",
        ("one", "three"): "three]",
        ("many", 1, "name"): 'name = "second"',
        ("many", 1, "inline", 1, "value"): "value = 'v'",
        ("many", 1, "below", 0, "deep"): "deep = true",
    }.items():
        assert at(TOML, *found[path]).startswith(begins), path


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=20),
       st.sampled_from([None, 1]))  # fmt: skip
def test_everything_in_a_json_file_is_found(value: Any, indent: int | None) -> None:
    assert set(json_places(json.dumps(value, indent=indent))) == paths(value)


@settings(deadline=None)
@given(st.text(alphabet="[]{}=,.\"'#\\ \nab1", max_size=60))
def test_any_text_at_all_ends(text: str) -> None:
    assert all(place.line >= 1 for place in (*toml_places(text).values(), *json_places(text).values()))


def test_what_was_not_written_is_shown_where_it_would_be() -> None:
    found = toml_places("[a]\nb = 1\n")
    assert place_of(found, ("a", "missing", 3)) == (1, 2)
    assert place_of(found, ()) is None


def broken(**changes: Any) -> list[str]:
    document = {**msgspec.to_builtins(manifest()), **changes}
    return [f"{written(problem.path)}: {problem.what}" for problem in problems(document, ReleaseManifest)]


def test_a_good_document_has_no_problems() -> None:
    assert broken() == []


def test_all_mistakes_are_named() -> None:
    good = msgspec.to_builtins(manifest())
    variant = {**good["variants"][0], "size_bytes": -1, "digset": "x"}
    found = broken(variants=[variant], context_tokens="many", budgets={"load_ms_max": 1.5}, stages=[{"devices": "0"}])
    assert [line.partition(": ")[0] for line in sorted(found)] == [
        "budgets.load_ms_max", "context_tokens", "stages[1].devices", "variants[1].digset", "variants[1].size_bytes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": []}, "variants: Expected `array` of length >= 1"),
        ({"variants": [msgspec.to_builtins(manifest())["variants"][0]] * 2}, "two variants have one name"),
    ],
)
def test_rules_over_several_values(changes: dict[str, Any], says: str) -> None:
    assert any(says in line for line in broken(**changes))
