"""What a person gets who types something wrong: one line that says what, where and what to do, and a stable code."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from drupelet.cli import main as entry
from drupelet.cli.main import NOUNS, main

DRUPELET = [sys.executable, "-m", "drupelet.cli.main"]


class Typed:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, str]:
        """Return the exit code and what was said on standard error."""
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), self._capsys.readouterr().err


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    monkeypatch.chdir(tmp_path)
    for name in ("DRUPELET_PASSPHRASE", "DRUPELET_SERVER", "DRUPELET_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Typed(capsys)


def is_one_line(said: str) -> bool:
    return said.startswith("drupelet: ") and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "No such command 'nonsense'; see: drupelet --help"),
        (["agent", "runn"], "Did you mean 'run'"),
        (["agent", "run", "--confg", "x"], "--config"),
        (["agent", "init"], "agent init: Missing argument 'device'; see: drupelet agent init --help"),
        (["agent", "init", "x", "--fleet"], "requires an argument"),
        (["agent", "history", "--last", "no"], "--last"),
        (["agent", "status", "-o", "xml"], "'table', 'json'"),
        (["depot", "serve", ".", "--port", "70000"], "65535"),
        (["keys", "init", "k"], "--family"),
        (["fleet", "token", "create", "a", "--scope", "king"], "'read', 'operate', 'release', 'admin'"),
        (["rollout", "start"], "release"),
        (["device", "list"], "DRUPELET_SERVER"),
        (["device", "list", "--server", "fleet.lab"], "http"),
        (["device", "list", "--server", "http://127.0.0.1:99999"], "is not an address"),
        (["device", "list", "--server", "http://[::1"], "is not an address"),
        (["device", "list", "--server", "http://"], "is not an address"),
        (["device", "list", "--server", "http://127.0.0.1:1", "--token", "two\nlines"], "the token holds"),
        (["release", "show", "../../x", "--server", "http://127.0.0.1:1"], "family/version"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_command_is_one_line_and_code_2(typed: Typed, words: list[str], says: str) -> None:
    code, said = typed(*words)
    assert code == 2
    assert is_one_line(said)
    assert says in said


@pytest.mark.parametrize("words", [[], *([noun] for noun in sorted(NOUNS))], ids=" ".join)
def test_a_noun_alone_shows_what_it_can_do(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.err) == (2, "")
    assert "Usage" in shown.out


AGENT = '[device]\nid = {id}\nstate_folder = "s"\n[fleet]\nurl = {url}\n[depot]\nurl = "http://d"\n'
FILES = {
    "cut short": b"a = [\n",
    "not UTF-8": b"\xff\xfe",
    "too deep": b"a = " + b"[" * 30_000,
    "huge": b"#" * 1_000_000,
    "another's": b"bogus_setting = 1\n",
}
READERS: dict[str, list[str]] = {
    "agent": ["agent", "status", "-c", "FILE"],
    "gateway": ["gateway", "check", "-c", "FILE"],
    "fleet": ["fleet", "migrate", "-c", "FILE"],
    "forge": ["forge", "build", "FILE", "--checkpoint", "c", "--version", "1.2", "--out", "o"],
}


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_a_bad_configuration_is_one_line_and_code_2(typed: Typed, tmp_path: Path, reader: str, damage: str) -> None:
    file = tmp_path / "file.toml"
    file.write_bytes(FILES[damage])
    code, said = typed(*(str(file) if word == "FILE" else word for word in READERS[reader]))
    assert code == 2
    assert is_one_line(said)
    assert str(file) in said


@pytest.mark.parametrize("reader", ["agent", "gateway", "fleet"])
def test_a_missing_configuration_is_one_line_and_code_4(typed: Typed, reader: str) -> None:
    code, said = typed(*("none.toml" if word == "FILE" else word for word in READERS[reader]))
    assert code == 4
    assert is_one_line(said)
    assert "none.toml" in said
    assert "--config" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["../x", "--fleet", "http://f"], "device.id: use lower-case letters"),
        (["x", "--fleet", "fleet.lab"], "fleet.url: use an address such as https://"),
        (["x", "--fleet", "http://f", "--label", "a=+"], "device.labels[...]: use letters"),
        (["x", "--fleet", "http://f", "--label", "+=a"], "device.labels: use letters"),
        (["x", "--fleet", "http://f", "--label", "lab"], "key=value"),
    ],
)
def test_a_bad_setting_is_said_without_a_pattern_and_leaves_no_file(
    typed: Typed, tmp_path: Path, words: list[str], says: str
) -> None:
    code, said = typed("agent", "init", *words, "--depot", "http://d", "-c", "agent.toml", "--state-folder", "s")
    assert code == 2
    assert is_one_line(said)
    assert says in said
    assert "regex" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["agent", "status"], 4),
        (["agent", "history"], 4),
        (["agent", "why"], 4),
        (["agent", "rollback", "--yes"], 4),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_where_no_agent_ever_ran(typed: Typed, tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "agent.toml").write_text(AGENT.format(id='"x"', url='"http://f"'))
    code_seen, said = typed(*words, "-c", "agent.toml")
    assert code_seen == code
    assert is_one_line(said)
    assert "no agent has ever run here" in said


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [(KeyboardInterrupt(), 130, "interrupted"), (typer.Abort(), 1, "question"), (EOFError(), 1, "question")],
    ids=["ctrl-c", "no", "end of input"],
)
def test_an_interrupted_command_is_one_line(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, says: str
) -> None:
    def build(_: set[str]) -> Callable[..., object]:
        app = typer.Typer()

        @app.command()
        def act() -> None:
            raise raised

        return app

    monkeypatch.setattr(entry, "build", build)
    code_seen, said = typed()
    assert code_seen == code
    assert is_one_line(said.lstrip("\n"))  # after an end of input the cursor is still in the question's line
    assert says in said


@pytest.mark.e2e
def test_ctrl_c_at_the_passphrase_makes_no_keys(tmp_path: Path) -> None:
    """A real terminal: the question is asked there, and so is Ctrl-C."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [*DRUPELET, "keys", "init", str(tmp_path / "keys"), "--family", "kiosk"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "DRUPELET_PASSPHRASE"},
        # Whoever runs the tests in a shell's background has SIGINT ignored for them, and for the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            os.close(theirs)
            shown += os.read(ours, 1000)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
    assert not (tmp_path / "keys" / "keyring.json").exists()
    os.set_blocking(ours, False)
    with suppress(OSError):  # the terminal's other end is gone and nothing was left in it
        shown += os.read(ours, 10_000)
    os.close(ours)
    assert b"interrupted" in shown
    assert b"Traceback" not in shown
