"""What comes from elsewhere is shown, and obeyed by no terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.cli.output import Format, plain, print_table, say, show
from drupelet.wire.codec import encode_canonical
from tests.wire.examples import manifest

NASTY = "[/x] [red]fine[/red] \x1b[2J\x1b]0;title\x07 \x9b31m \r end"


def test_markup_and_control_characters_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("what", "is"), [("summary", NASTY)])
    show([], output=Format.TABLE, columns=("reason",), rows=[(NASTY,)])
    say(NASTY)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "[/x] [red]fine[/red] \\x1b[2J\\x1b]0;title\\x07" in text
        assert not any((ord(mark) < 32 and mark != "\n") or 0x7F <= ord(mark) < 0xA0 for mark in text)


@pytest.mark.parametrize("text", ["plain", "two\nlines", "a\ttab", "ümläut 日本"])
def test_ordinary_text_stays(text: str) -> None:
    assert plain(text) == text


def test_a_manifest_with_nasty_words_is_shown_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_bytes(encode_canonical(manifest(summary=NASTY)))
    b.write_bytes(encode_canonical(manifest(summary="plain")))
    for words in (["show", str(a)], ["diff", str(a), str(b)]):
        with pytest.raises(SystemExit) as ended:
            main(["release", *words])
        assert not ended.value.code
        said = capsys.readouterr().out
        assert "[/x] [red]fine[/red]" in said
        assert "\x1b" not in said
