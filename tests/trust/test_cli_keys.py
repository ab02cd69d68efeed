"""`drupelet keys`, as typed."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository, KeyRing
from drupelet.trust.ceremony.plan import plan_text
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


def test_a_release_key_is_replaced_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, depot = tmp_path / "keys", tmp_path / "depot"
    assert run("keys", "init", str(keys), "--family", "kiosk") == 0
    ring = KeyRing(PosixDisk(), keys, passphrase=lambda: PASSPHRASE)
    ImageRepository(PosixDisk(), depot, ring, lambda: datetime.now(UTC)).create()
    capsys.readouterr()
    rotate = ["keys", "rotate", str(keys), "--depot", str(depot)]
    assert run(*rotate, "--add", "kiosk", "--revoke", "image-family-kiosk", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"director_root": None, "image": ["targets", "kiosk"]}
    assert run(*rotate) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert run("keys", "show", str(keys)) == 0
    assert "revoked" in capsys.readouterr().out
    assert run(*rotate, "--add-family", "runtime") == 0
    assert "signed anew: targets, runtime" in capsys.readouterr().err


def test_two_people_sign_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, depot, other = tmp_path / "keys", tmp_path / "depot", tmp_path / "other"
    two = ["--family", "kiosk", "--family-keys", "2", "--family-threshold", "2"]
    assert run("keys", "init", str(keys), *two) == 0
    shutil.copytree(keys, other)
    (keys / "private" / "image-family-kiosk-2.pem").unlink()
    renew = ["depot", "renew", str(depot), "--keys", str(keys), "--everything"]
    ring = KeyRing(PosixDisk(), other, passphrase=lambda: PASSPHRASE)
    ImageRepository(PosixDisk(), depot, ring, lambda: datetime.now(UTC)).create()
    capsys.readouterr()
    assert run(*renew) == 3
    said = capsys.readouterr().err
    assert "targets" not in said
    assert "missing 1 of: image-family-kiosk-2" in said
    pending = keys / "pending" / "kiosk.json"
    sign = ["keys", "sign", str(pending), "--keys", str(other)]
    assert run(*sign) == 2
    assert "give --yes" in capsys.readouterr().err
    assert run(*sign, "--yes", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["signed"] == ["image-family-kiosk-2"]
    assert run(*renew) == 0


@pytest.mark.parametrize(
    ("wishes", "code", "words"),
    [
        (("--threshold", "kiosk"), 2, "is not ROLE=N"),
        (("--threshold", "kiosk=9"), 2, "add keys first"),
        (("--add", "robot"), 2, "it has"),
        (("--add", "kiosk=usb:stick"), 2, "known places"),
        (("--add", "kiosk", "--scheme", "rot13"), 2, "ed25519"),
        (("--revoke", "nobody"), 4, "no key 'nobody'"),
        (("--revoke", "image-targets"), 2, "add another first"),
        (("--drop-family", "kiosk"), 2, "not one of several"),
    ],
)
def test_wishes_that_make_no_sense_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wishes: tuple[str, ...], code: int, words: str
) -> None:
    keys = tmp_path / "keys"
    assert run("keys", "init", str(keys), "--family", "kiosk") == 0
    before = (keys / "keyring.json").read_bytes()
    capsys.readouterr()
    assert run("keys", "rotate", str(keys), *wishes) == code
    assert words in capsys.readouterr().err
    assert (keys / "keyring.json").read_bytes() == before


def a_plan(folder: Path) -> Path:
    path = folder / "ceremony.toml"
    holders = {name: str(folder / name) for name in ("Ada", "Grace", "Edsger")}
    path.write_text(plan_text(title="Keys", families=["kiosk"], holders=holders, threshold=2, operator="Linus"))
    return path


def test_a_rehearsal_as_typed_leaves_nothing_but_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, out = a_plan(tmp_path), tmp_path / "out"
    assert run("keys", "ceremony", str(plan), "--rehearse", "--yes", "--out", str(out), "-o", "json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rehearsal"] is True
    assert "thrown away" in captured.err
    assert [path.name for path in out.iterdir()] == ["rehearsal.md"]
    assert "REHEARSAL" in (out / "rehearsal.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"ceremony.toml", "out"}


def test_a_ceremony_as_typed_and_its_record_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = a_plan(tmp_path), tmp_path / "keys"
    monkeypatch.setattr("typer.confirm", lambda *_words, **_more: True)
    monkeypatch.setattr("getpass.getpass", lambda _question: PASSPHRASE)
    assert run("keys", "ceremony", str(plan), "--out", str(out)) == 0
    record = str(out / "ceremony" / "record.dsse.json")
    assert PASSPHRASE not in capsys.readouterr().err
    assert run("keys", "record", record, "--root", str(out / "image-root.json")) == 0
    shown = capsys.readouterr()
    assert "| image-root-2 | image/root | Grace |" in shown.out
    assert "Signed by 3 of the root's 3 keys" in shown.err
    assert run("keys", "record", record, "--root", str(out / "director-root.json"), "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Keys"
    assert run("keys", "init", str(tmp_path / "others"), "--family", "kiosk") == 0
    capsys.readouterr()
    assert run("keys", "record", record, "--root", str(tmp_path / "others" / "image-root.json")) == 7
    assert "0 of the root's keys have signed this record, 2 must" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--yes"], 2, "goes with --rehearse only"),
        ([], 2, "give --out"),
        (["--out", "x", "--interactive"], 2, "a plan lies here"),
    ],
)
def test_a_ceremony_asked_for_wrongly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    assert run("keys", "ceremony", str(a_plan(tmp_path)), *words) == code
    assert says in capsys.readouterr().err


def test_a_plan_is_asked_for_and_rehearsed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["Keys", "kiosk", "Ada, Grace, Edsger", "/a", "/g", "/e", 2, "Linus"])
    monkeypatch.setattr("typer.prompt", lambda *_words, **_more: next(answers))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    plan = tmp_path / "ceremony.toml"
    assert run("keys", "ceremony", str(plan), "--interactive", "--rehearse", "--yes") == 0
    assert 'medium = "/g"' in plan.read_text()
