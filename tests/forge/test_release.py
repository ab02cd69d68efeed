"""The whole line as a person types it: build, publish; a scrambled model is refused, a slow one changes no answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from demo.surgery import add_identity_layers, scramble

from drupelet.cli.main import main
from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.engine.logits import compute
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ReleaseManifest
from tests.fakes.tiny_models import write_tiny_model
from tests.forge.conftest import KIOSK

RECIPE, CHECKPOINT = str(KIOSK / "recipe.toml"), KIOSK / "1.1"


@pytest.fixture(scope="module")
def short_recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kiosk's recipe with three questions to compare variants on instead of dozens."""
    text = Path(RECIPE).read_text()
    head, questions = text.rsplit("prompts = [\n", 1)
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(head + "prompts = [\n" + "\n".join(questions.splitlines()[:3]) + "\n]\n")
    return str(path)


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def _publish(package: Path, depot: Path, keys: Path) -> int:
    return _run("forge", "publish", str(package), "--depot", str(depot), "--keys", str(keys), "-o", "json")


def test_from_checkpoint_to_signed_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short_recipe: str
) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", "correct horse battery staple")
    keys, depot, package = tmp_path / "keys", tmp_path / "depot", tmp_path / "package"
    assert _run("keys", "init", str(keys), "--family", "kiosk") == 0
    build = ["forge", "build", short_recipe, "--checkpoint", str(CHECKPOINT), "--version", "1.1", "--out", str(package)]
    capsys.readouterr()
    assert _run(*build, "-o", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert all(result["passed"] for variant in report["variants"] for result in variant["canonical"])
    assert _publish(package, depot, keys) == 0
    target = json.loads(capsys.readouterr().out)
    manifest = decode(ReleaseManifest, (depot / "targets/kiosk/1.1" / f"{target['sha256']}.manifest.json").read_bytes())
    for variant in manifest.variants:
        hexdigits = variant.digest.removeprefix("sha256:")
        assert (depot / "blobs/sha256" / hexdigits[:2] / hexdigits).stat().st_size == variant.size_bytes
    page = manifest.attachment("report-page")
    assert page is not None
    hexdigits = page.digest.removeprefix("sha256:")
    kept = (depot / "blobs/sha256" / hexdigits[:2] / hexdigits).read_bytes()
    assert kept == (package / "report.html").read_bytes()
    assert b"<h1>kiosk 1.1</h1>" in kept
    assert _publish(package, depot, keys) == 0, "publishing twice changes nothing"

    damaged = bytearray((package / "q4_0.gguf").read_bytes())
    damaged[-1] ^= 1
    (package / "q4_0.gguf").chmod(0o644)
    (package / "q4_0.gguf").write_bytes(bytes(damaged))
    assert _publish(package, depot, keys) == 2
    assert "its digest is sha256:" in capsys.readouterr().err
    (package / "q4_0.gguf").unlink()
    assert _publish(package, depot, keys) == 4


def test_a_scrambled_model_is_refused_and_an_override_is_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], short_recipe: str
) -> None:
    scramble(CHECKPOINT, tmp_path / "scrambled", seed=3)
    out = tmp_path / "package"
    build = ["forge", "build", short_recipe, "--checkpoint", str(tmp_path / "scrambled"), "--version", "1.3"]
    assert _run(*build, "--out", str(out)) == 8
    assert "the evaluation refuses this release" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    assert b">Refused</h2>" in (out / "report.html").read_bytes(), "whoever was refused wants to read why"
    assert _run(*build, "--out", str(out), "--override-evaluation", "a drill") == 0
    assert json.loads((out / "manifest.json").read_text())["evaluation"]["overridden"] == "a drill"


def test_identity_layers_change_nothing(tmp_path: Path) -> None:
    add_identity_layers(CHECKPOINT, tmp_path / "slow", layers=3)
    logits = []
    for name, folder in (("plain", CHECKPOINT), ("slow", tmp_path / "slow")):
        checkpoint = open_checkpoint(folder)
        wanted = [Wanted(name=variant_name(name), quantization="q8_0")]
        (made,) = convert(checkpoint, wanted, tmp_path / "out", model_name="kiosk", disk=PosixDisk())
        logits.append(list(compute(made.artifact.path, [[3, 100, 200, 300]], tmp_path / f"{name}.logits")))
    np.testing.assert_array_equal(logits[0][0], logits[1][0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", str(CHECKPOINT)], 0, "whole and finite"),
        (["check", "/nowhere"], 2, "there is no such folder"),
        (["build", "/nowhere/recipe.toml", "--checkpoint", "x", "--version", "1.1", "--out", "x"], 2, "cannot be read"),
        (["build", RECIPE, "--checkpoint", "x", "--version", "one", "--out", "x"], 2, "version 'one'"),
    ],
)
def test_what_the_command_says(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("forge", *arguments) == code
    assert words in capsys.readouterr().err


def test_check_opens_the_tokenizer_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny_model(tmp_path / "c", "qwen2")
    with pytest.raises(SystemExit):
        main(["forge", "check", str(folder)])
    assert "a tokenizer of 512 tokens: byte-level BPE, cut like qwen2" in capsys.readouterr().err
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["forge", "check", str(folder)])
    assert ended.value.code == 2
    assert "tokenizer.json: it has no model" in capsys.readouterr().err


def test_a_weight_that_is_no_number_is_found_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kiosk"
    shutil.copytree(CHECKPOINT, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2:] = b"\x00\x7e"  # a float16 NaN
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert _run("forge", "check", str(folder)) == 2
    assert "holds a NaN" in capsys.readouterr().err
