"""`drupelet keys`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drupelet.cli.main import main
from tests.fakes.trust_world import PASSPHRASE


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_init_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "keys")
    assert run("keys", "init", folder, "--family", "kiosk", "-o", "json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["families"] == ["kiosk"]
    assert {key["private_key"] for key in made["keys"]} == {"here"}
    (tmp_path / "keys" / "private" / "image-root-1.pem").unlink()
    (tmp_path / "keys" / "private" / "director-online.pem").chmod(0o644)
    monkeypatch.delenv("DRUPELET_PASSPHRASE")
    assert run("keys", "show", folder, "-o", "json") == 0
    shown = capsys.readouterr()
    states = {key["name"]: key["private_key"] for key in json.loads(shown.out)["keys"]}
    assert (states["image-root-1"], states["director-online"]) == ("away", "unsafe")
    assert run("keys", "show", folder) == 0
    assert "exposed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--family", "kiosk", "--threshold", "9"), 2, "threshold"),
        (("--family", "../x"), 2, "safe name"),
        (("--family", "kiosk", "--passphrase-file", "/nonexistent"), 4, "/nonexistent"),
    ],
)
def test_errors_are_one_line_with_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert run("keys", "init", str(tmp_path / "keys"), *arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("drupelet: ")
    assert error.count("\n") == 1


def test_a_short_passphrase_is_refused_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", "hunter2")
    assert run("keys", "init", str(tmp_path / "keys"), "--family", "kiosk") == 2
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err


def test_showing_what_is_no_key_ring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "show", str(tmp_path)) == 4
    assert "drupelet keys init" in capsys.readouterr().err
