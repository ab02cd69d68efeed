"""A release is compared with the one it replaces, from its package or from a depot; once, and kept."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, ReleaseId, variant_name
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Converted, Wanted, convert
from drupelet.forge.errors import PackageBad
from drupelet.forge.evaluation import Bench, evaluate
from drupelet.forge.evaluation.regressions import Verdict
from drupelet.forge.evaluation.replaced import Replaced, open_replaced
from drupelet.forge.pack import pack
from drupelet.forge.recipe import Recipe, parse_recipe
from drupelet.forge.report import Report
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.forge.recipes import RECIPE

CHECKS = b"""
[groups.answers]
pass_min = 0.0
[[checks]]
id = "any"
group = "answers"
prompts = ["one", "two", "three", "four", "five", "six"]
tokens_max = 4
expect = [{ kind = "tokens_min", value = "1" }]
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return parse_recipe(RECIPE + CHECKS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Converted, ...], Path]:
    """A checkpoint, its variants, and a package of them."""
    folder = tmp_path_factory.mktemp("replaced")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    wanted = [Wanted(name=variant_name(one), quantization=one) for one in ("q8_0", "f16")]
    package = folder / "package"
    return checkpoint, convert(open_checkpoint(checkpoint), wanted, package, model_name="t", disk=PosixDisk()), package


def _evaluate(
    recipe: Recipe,
    made: tuple[Path, tuple[Converted, ...], Path],
    bench: Bench,
    replaced: Replaced | None,
) -> Report:
    reference = made[1][1].artifact
    checkpoint = open_checkpoint(made[0])
    return evaluate(recipe, made[1], reference=reference, checkpoint=checkpoint, bench=bench, replaced=replaced)


@pytest.fixture
def bench(tmp_path: Path, runtime_folder: Path) -> Bench:
    said: list[str] = []
    return Bench(disk=PosixDisk(), cache=tmp_path / "cache", runtime_folder=runtime_folder, progress=said.append)


@pytest.fixture(scope="module")
def package(made: tuple[Path, tuple[Converted, ...], Path], recipe: Recipe) -> Path:
    """The release that is replaced, packed."""
    with tempfile.TemporaryDirectory(prefix="drp-") as short:
        bench = Bench(disk=PosixDisk(), cache=Path(short) / "c", runtime_folder=Path(short))
        report = _evaluate(recipe, made, bench, None)
    pack(
        ReleaseId.parse("tiny/1.0"),
        recipe,
        report,
        recipe_digest=Digest.of_hex("1" * 64),
        checkpoint=open_checkpoint(made[0]),
        folder=made[2],
        disk=PosixDisk(),
        created_at_ms=1,
    )
    return made[2]


def test_the_same_release_loses_nothing_and_is_asked_once(
    made: tuple[Path, tuple[Converted, ...], Path], package: Path, recipe: Recipe, bench: Bench
) -> None:
    replaced = open_replaced(str(package), disk=PosixDisk())
    report = _evaluate(recipe, made, bench, replaced)
    assert report.passed, report.findings
    assert report.replaces == "tiny 1.0"
    group = {one.name: one for one in report.variants[0].groups}["answers"]
    assert group.regression is not None
    assert (group.regression.drop, group.regression.lost, group.regression.before) == (0.0, 0, 1.0)
    kept = sorted(path.name for path in bench.cache.glob("*.before.json"))
    assert len(kept) == 2, "one for each variant"
    _evaluate(recipe, made, bench, replaced)
    assert sorted(path.name for path in bench.cache.glob("*.before.json")) == kept


def test_a_release_that_cannot_be_compared_with_is_a_finding(
    made: tuple[Path, tuple[Converted, ...], Path], package: Path, recipe: Recipe, bench: Bench, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    (copy / "q8_0.gguf").chmod(0o644)
    (copy / "q8_0.gguf").write_bytes(b"GGUF, and then nothing")
    (copy / "f16.gguf").unlink()
    report = _evaluate(recipe, made, bench, open_replaced(str(copy), disk=PosixDisk()))
    first, second = report.variants
    assert first.findings[0].startswith("not compared with tiny 1.0: it does not run here: the model file's digest is")
    assert second.findings == ()
    assert second.notes == ("not compared with tiny 1.0, which has no such variant",)


def test_a_depots_release_is_found_by_name(package: Path, tmp_path: Path) -> None:
    data = (package / "manifest.json").read_bytes()
    folder = tmp_path / "depot" / "targets" / "tiny" / "1.0"
    folder.mkdir(parents=True)
    named = folder / f"{hashlib.sha256(data).hexdigest()}.manifest.json"
    named.write_bytes(data)
    replaced = open_replaced(f"{tmp_path / 'depot'}:tiny/1.0", disk=PosixDisk())
    digest = Digest.parse(replaced.manifest.variants[0].digest).hex
    assert replaced.files["q8_0"] == tmp_path / "depot" / "blobs" / "sha256" / digest[:2] / digest
    named.write_bytes(data + b" ")
    with pytest.raises(PackageBad, match="not what its name says"):
        open_replaced(f"{tmp_path / 'depot'}:tiny/1.0", disk=PosixDisk())


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ("nowhere", NotFound, "there is no such package"),
        ("{}", NotFound, "manifest.json"),
        ("{}:tiny/1.0", NotFound, "has no release tiny 1.0"),
        ("{}:tiny", BadInput, "tiny"),
    ],
)
def test_what_is_no_release_is_refused(place: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        open_replaced(place.format(tmp_path), disk=PosixDisk())
    assert words in str(caught.value)


def test_a_regression_of_a_group_refuses_the_release(
    made: tuple[Path, tuple[Converted, ...], Path],
    package: Path,
    recipe: Recipe,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = len(recipe.checks[0].prompts)
    before = (Verdict("canonical", "anything", True), *(Verdict("answers", "p", True) for _ in range(asked)))
    monkeypatch.setattr("drupelet.forge.evaluation.run.verdicts_before", lambda *_: before)
    expect = msgspec.structs.replace(recipe.checks[0].expect[0], kind="contains", value="no model says this")
    worse = msgspec.structs.replace(recipe, checks=(msgspec.structs.replace(recipe.checks[0], expect=(expect,)),))
    report = _evaluate(worse, made, bench, open_replaced(str(package), disk=PosixDisk()))
    assert not report.passed
    assert report.variants[0].findings[0].startswith("regression in answers: good answers fell from 100.0% to 0.0%")
