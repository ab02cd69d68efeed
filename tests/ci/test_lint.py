"""`drupelet lint`: every mistake at its line, in words, for people and for programs."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.ci.lint import FILE_BYTES_MAX, github, lint_bytes
from drupelet.cli.main import main
from drupelet.cli.output import plain
from drupelet.core.errors import BadInput
from drupelet.forge.recipe import parse_recipe
from drupelet.wire.codec import encode_canonical
from tests.forge.test_recipe import GOOD
from tests.wire.examples import manifest

ROOT = Path(__file__).resolve().parents[2]
POLICY = (ROOT / "demo" / "policy.toml").read_text()


def lines(text: str, name: str = "recipe.toml") -> list[str]:
    return [finding.text() for finding in lint_bytes(text.encode(), path=Path(name))]


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["lint", *(str(word) for word in words)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_good_recipe_has_no_findings() -> None:
    assert lines(GOOD) == []


def test_all_mistakes_of_a_recipe_are_shown_where_they_stand() -> None:
    text = GOOD
    for old, new in (
        ("load_ms_max", "load_ms_mx"),
        ("context_tokens = 128", 'context_tokens = "128"'),
        ('name = "q8"\nquantization =', 'name = "q8"\nquantisation ='),
        ('kind = "contains"', 'kind = "containts"'),
    ):
        assert old in text
        text = text.replace(old, new)
    assert lines(text) == [
        "recipe.toml:4:1: error: context_tokens: Expected `int`, got `str`",
        "recipe.toml:7:1: error: unknown key 'load_ms_mx' in budgets; did you mean 'load_ms_max'?",
        "recipe.toml:17:3: error: missing required field `quantization` in variants[2]",
        "recipe.toml:19:1: error: unknown key 'quantisation' in variants[2]; did you mean 'quantization'?",
        "recipe.toml:24:13: error: canonical_prompts[1].expect[1].kind: Invalid enum value 'containts'",
    ]


def test_what_only_the_whole_recipe_shows() -> None:
    text = GOOD.replace('name = "q8"', 'name = "q4"').replace('"q8_0"', '"q5_k_xl"')
    found = lines(text)
    assert [line.split(":")[1] for line in found] == ["17", "19"]
    assert "two variants are called 'q4'" in found[0]
    assert "use one of" in found[1]


def test_a_mistake_in_a_variant_of_the_same_look_as_another() -> None:
    twice = GOOD.replace('quantization = "q8_0"', 'quantization = "q4_1_0"')
    assert lines(twice)[0].startswith("recipe.toml:19:1: error: unknown quantization 'q4_1_0'")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("errors = { alpha = 0.0002", "errors = { alpha = 0.2", "19:7: error: the rules' shares add up to 0.2008"),
        ("fresh_s = 30", "fresh_z = 30", "unknown field 'fresh_z'; did you mean 'fresh_s'?"),
        ("margin = 1.5, mandatory", "margin = 0.5, mandatory", "margin 0.5 is not a ratio above 1"),
        ("tail =", "tale =", "'tale' is not one of: latency, tail"),
        ("probation_ms = 1000", "probation_ms = -1", "probation_ms: Expected `int` >= 0"),
        ("staged_share = 1.0", 'staged_share = "all"', "staged_share: Expected `float`, got `str`"),
        ("block_ms = 2000", "blok_ms = 2000", "unknown key 'blok_ms' in crossover; did you mean 'block_ms'?"),
        ("drupelet.policy/1", "drupelet.policy/7", "format: Invalid enum value 'drupelet.policy/7'"),
    ],
)
def test_a_policy_that_contradicts_itself(old: str, new: str, says: str) -> None:
    assert old in POLICY
    (found,) = lines(POLICY.replace(old, new), "policy.toml")
    assert says in found, found


def test_all_mistakes_of_a_policy_are_shown() -> None:
    text = POLICY.replace("fresh_s", "fresh_z").replace("margin = 1.5, m", "margin = 0.5, m").replace("1000", "-1")
    assert len(lines(text, "policy.toml")) == 3


def test_a_manifest_with_something_new_gets_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(encode_canonical(manifest()))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**document, "varients": []}, indent=1))
    code, out, _ = run(capsys, path)
    assert code == 0
    assert "warning: unknown key 'varients'; did you mean 'variants'?" in out
    path.write_text(json.dumps({**document, "version": "one", "format": "drupelet.manifest/9"}, indent=1))
    code, out, _ = run(capsys, path)
    assert (code, out.count(": error: ")) == (2, 2)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("recipe.toml", "a = [1, 2", "1:1: error: not TOML: Unclosed array"),
        ("recipe.toml", "a = 1\nb = = 2\n", "2:5: error: not TOML: Invalid value"),
        ("x.json", '{"a": 1,\n "b" 2}', "2:6: error: not JSON: Expecting ':' delimiter"),
        ("x.json", "[1]", "1:1: error: a list or a value"),
        ("x.toml", "a = 1", "it does not say what it is; begin it with a format, one of drupelet.recipe/1"),
        ("x.toml", "format = 'drupelet.order/1'", "it does not say what it is"),
        ("x.toml", "a = " + "[" * 3000, "not TOML"),
        (
            "agent.toml",
            "[device]\nid = 'A'\n[fleet]\nurl = 'ftp://x'\n[depot]\nurl = 'http://d'",
            "2:1: error: device.id",
        ),
        ("agent.toml", "[fleet]\nurl = 'http://x'", "missing required field `device`"),
        ("gateway.toml", "[listen]\nprt = 1", "2:1: error: unknown key 'prt' in listen; did you mean 'port'?"),
        ("fleet.toml", "listn = ':1'", "did you mean 'listen'?"),
    ],
)
def test_what_is_hardly_a_file_of_ours(name: str, text: str, says: str) -> None:
    found = lines(text, name)
    assert found
    assert says in "\n".join(found)


def test_bytes_that_are_no_text() -> None:
    (found,) = lint_bytes(b"\xff", path=Path("recipe.toml"))
    assert found.what == "not UTF-8 at byte 0"


def test_a_folder_is_searched_for_what_says_it_is_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "models" / "kiosk", tmp_path / "models" / "kiosk", ignore=shutil.ignore_patterns("1.*"))
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "slow.toml").write_text(POLICY)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "recipe.toml").write_text("broken")
    code, out, err = run(capsys, tmp_path)
    assert (code, out, err) == (0, "", "2 files checked, nothing is wrong\n")
    (tmp_path / "slow.toml").write_text(POLICY.replace("fresh_s", "fresh_z"))
    (tmp_path / "recipe.toml").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    code, out, err = run(capsys, tmp_path)
    assert (code, out.count("\n"), err) == (2, 2, "drupelet: 2 mistakes in 2 files\n")


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path / "nothing.toml")
    assert (code, err.count("\n")) == (4, 1)


def test_other_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace("fresh_s", "fresh_z"))
    assert (
        json.loads(run(capsys, path, "-o", "json")[1])[0]["line"] == POLICY[: POLICY.index("fresh_s")].count("\n") + 1
    )
    (annotation,) = run(capsys, path, "--format", "github")[1].splitlines()
    assert annotation.startswith(f"::error file={path},line=")
    made = json.loads(run(capsys, path, "--format", "sarif")[1])
    assert made["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == str(path)


def test_what_a_file_says_cannot_become_a_command_of_github() -> None:
    (found,) = lint_bytes(b'"a\\n::set-output name=x::y" = 1\nformat="drupelet.policy/1"', path=Path("a,b.toml"))
    assert "\n" not in github(found)
    assert github(found).startswith("::error file=a%2Cb.toml,line=1,")


STRANGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\x00", "("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "alpha", "", "x"]), inner),
    max_leaves=6,
)
DOCUMENTS = {
    "recipe.toml": tomllib.loads(GOOD),
    "policy.toml": tomllib.loads(POLICY),
    "manifest.json": json.loads(encode_canonical(manifest())),
}


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every way into a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*way, key) for key, _ in inner] + [found for key, one in inner for found in ways(one, (*way, key))]


@settings(deadline=None)  # a busy machine is no mistake
@given(st.data(), st.sampled_from(list(DOCUMENTS)))
def test_no_document_surprises_the_linter(data: st.DataObject, name: str) -> None:
    document = json.loads(json.dumps(DOCUMENTS[name]))
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(ways(document) or [()]))
        inside = document
        for part in way[:-1]:
            inside = inside[part]
        if way:
            inside[way[-1]] = data.draw(STRANGE)
    text = json.dumps(document)
    for finding in lint_bytes(text.encode(), path=Path(name).with_suffix(".json")):
        assert plain(finding.text()).encode()


def test_a_document_that_is_deeper_than_anything_of_ours() -> None:
    deep = "[" * 900 + "]" * 900
    found = lint_bytes(f'{{"format": "drupelet.manifest/1", "x": {deep}}}'.encode(), path=Path("manifest.json"))
    assert any(one.what.startswith(("nested too deeply", "not JSON", "unknown key 'x'")) for one in found)


# --- schemas ---------------------------------------------------------------------------------------------------------


def schema(capsys: pytest.CaptureFixture[str], kind: str) -> dict[str, Any]:
    code, out, _ = run(capsys, "--schema", kind)
    assert code == 0
    made: dict[str, Any] = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(made)
    return made


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("recipe", "models/kiosk/recipe.toml"),
        ("policy", "demo/policy.toml"),
        ("policy", "demo/first.toml"),
        ("agent", "deploy/config/agent.toml"),
        ("gateway", "deploy/config/gateway.toml"),
        ("fleet", "deploy/config/fleet.toml"),
    ],
)
def test_a_schema_takes_what_the_linter_takes(capsys: pytest.CaptureFixture[str], kind: str, file: str) -> None:
    document = tomllib.loads((ROOT / file).read_text())
    jsonschema.validate(document, made := schema(capsys, kind))
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate({**document, "unknown_key": 1}, made)


def test_the_manifests_schema(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(encode_canonical(manifest()))
    jsonschema.validate({**document, "new": 1}, made := schema(capsys, "manifest"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "variants": []}, made)


def test_a_policys_schema_knows_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="fresh_z"):
        jsonschema.validate({"gate": {"fresh_z": 1}}, schema(capsys, "policy"))


def test_there_is_no_such_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--schema", "rezept")
    assert (code, "one of recipe, policy, manifest" in err) == (2, True)


def test_the_linter_and_the_forge_agree() -> None:
    """What the linter finds first is what a build would be refused for."""
    text = GOOD.replace("load_ms_max", "load_ms_mx")
    (found,) = lint_bytes(text.encode(), path=Path("recipe.toml"))
    with pytest.raises(BadInput) as refused:
        parse_recipe(text.encode(), where="recipe.toml")
    assert (refused.value.what, refused.value.where) == (found.what, f"recipe.toml:{found.line}")
