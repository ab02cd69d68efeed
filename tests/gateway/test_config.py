"""gateway.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.core.errors import NotFound
from drupelet.gateway import config
from drupelet.gateway.errors import BadConfig
from drupelet.wire import settings


def test_an_empty_file_is_all_defaults() -> None:
    parsed = config.parse(b"", where="x")
    assert parsed == config.Config()
    assert parsed.control == Path("/var/lib/drupelet/control.sock")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[listen]\nprot = 1", "did you mean listen.port?"),
        (b"zzz = 1", "known here:"),
        (b"[listen]\nport = 70000", "<= 65535"),
        (b"[child]\nthreads = 'four'", "Expected `int`"),
        (b"listen = 3", "Expected `object`"),
        (b"[listen", "not TOML"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_mistakes_say_where_and_what_would_do(text: bytes, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        config.parse(text, where="gateway.toml")
    assert "gateway.toml" in caught.value.line()
    assert said in caught.value.line()


def test_a_missing_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        config.read(tmp_path / "none.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (settings.SETTINGS_BYTES_MAX + 1))
    with pytest.raises(BadConfig, match="larger than"):
        config.read(tmp_path / "big.toml")
