"""`drupelet verify`, as a security officer types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from drupelet.cli.main import main
from tests.depot.conftest import serving
from tests.fakes.packages import write_package
from tests.fakes.trust_world import PASSPHRASE


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture
def published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A release in a depot; returns what verifies it."""
    write_package(tmp_path / "package")
    assert run("keys", "init", str(tmp_path / "keys"), "--family", "kiosk") == 0
    publish = ["forge", "publish", str(tmp_path / "package"), "--depot", str(tmp_path / "depot")]
    assert run(*publish, "--keys", str(tmp_path / "keys")) == 0
    capsys.readouterr()
    root = str(tmp_path / "keys" / "image-root.json")
    return ["verify", "kiosk/1.1", "--depot", str(tmp_path / "depot"), "--root", root]


def test_a_release_is_verified_and_the_statement_filed(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, evidence = tmp_path / "statement.md", tmp_path / "evidence"
    assert run(*published, "--out", str(out), "--evidence", str(evidence), "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "pass"
    assert answer["format"] == "drupelet.verification/1"
    assert out.read_text().startswith("# Verification of kiosk/1.1\n\n**VERIFIED**")
    saved = {path.name for path in evidence.iterdir()}
    assert saved == {"provenance.json", "provenance.dsse.json", "bom.cdx.json", "model.sig", "model-signing.pub"}
    stock = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        str(tmp_path / "package"),
        "--ignore_unsigned_files",
    ]
    stock += ["--signature", str(evidence / "model.sig"), "--public_key", str(evidence / "model-signing.pub")]
    assert subprocess.run(stock, capture_output=True, check=False).returncode == 0


def test_a_depot_behind_a_web_server_is_verified_too(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "depot") as url:
        assert run(*published[:3], url, *published[4:], "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], answer["verdict"]) == (url, "pass")
    assert run(*published[:3], url, *published[4:]) == 6


def test_a_damaged_release_ends_with_7_and_saves_nothing(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = next(path for path in (tmp_path / "depot" / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[::-1])
    evidence = tmp_path / "evidence"
    assert run(*published, "--evidence", str(evidence)) == 7
    said = capsys.readouterr()
    assert "fail" in said.out
    assert "kiosk/1.1 is not verified: " in said.err
    assert not evidence.exists()


def test_a_package_is_unsigned_and_may_be_accepted_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path / "package")
    assert run("verify", str(tmp_path / "package")) == 7
    assert "nobody has signed it yet" in capsys.readouterr().out.replace("\n", " ")
    accept = [word for name in ("signature", "provenance", "model-signature") for word in ("--accept-unknown", name)]
    assert run("verify", str(tmp_path / "package"), *accept) == 0


def test_another_root_believes_nothing(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("keys", "init", str(tmp_path / "others"), "--family", "kiosk") == 0
    assert run(*published[:-1], str(tmp_path / "others" / "image-root.json")) == 7
    assert "lacks the signatures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda words: words[:2], 2, "no folder of a package"),
        (lambda words: words[:-2], 2, "what is to be believed"),
        (lambda words: [*words[:-1], "/nonexistent"], 4, "/nonexistent"),
        (lambda words: [*words[:-1], __file__], 2, "not a TUF root"),
        (lambda words: [*words[:3], "ftp://x", *words[4:]], 2, "ftp"),
        (lambda words: [*words[:3], "/nonexistent", *words[4:]], 4, "no such folder"),
        (lambda words: [words[0], "kiosk", *words[2:]], 2, "family/version"),
        (lambda words: [words[0], "kiosk/9.9", *words[2:]], 7, "does not vouch"),
        (lambda words: [*words, "--accept-unknown", "all"], 2, "no check called 'all'"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    published: list[str], capsys: pytest.CaptureFixture[str], change: object, code: int, words: str
) -> None:
    assert run(*change(published)) == code  # type: ignore[operator]
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
