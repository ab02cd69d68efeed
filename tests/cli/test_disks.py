"""Real disks that are full or read-only, under real commands. Needs the right to mount; says so where it is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
AGENT = '[device]\nid = "x"\nstate_folder = "{0}/s"\n[fleet]\nurl = "http://127.0.0.1:9"\n[depot]\nurl = "http://d"\n'
GATEWAY = 'state_folder = "{0}"\nruntime_folder = "{0}/run"\n[listen]\nport = 0\n'
FLEET = (
    'listen = "127.0.0.1:0"\nstate_folder = "{0}/fleet"\ndepot_url = "http://d"\nimage_root = "i"\n'
    'director_root = ["d"]\ndirector_key = "k"\n'
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def drupelet(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "drupelet.cli.main", *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_a_disk_that_fills_up_during_an_upload_is_one_line_and_keeps_what_it_had(disk: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"s" * 1000)
    large.write_bytes(b"l" * 4_000_000)
    assert drupelet("depot", "put", disk / "depot", small)[0] == 0
    code, said = drupelet("depot", "put", disk / "depot", large)
    assert (code, said.count("\n")) == (6, 1)
    assert "No space left on device; free space on this disk" in said
    assert drupelet("depot", "check", disk / "depot")[0] == 0
    large.write_bytes(b"l" * 500_000)
    assert drupelet("depot", "put", disk / "depot", large)[0] == 0  # the half of it that came before takes no room


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AGENT, ("agent", "run")),
        (AGENT, ("agent", "hold")),
        (GATEWAY, ("gateway", "run")),
        (FLEET, ("fleet", "run")),
    ],
    ids=["agent", "hold", "gateway", "fleet"],
)
def test_a_read_only_state_folder_is_one_line(disk: Path, tmp_path: Path, config: str, words: tuple[str, ...]) -> None:
    (disk / "s").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    (tmp_path / "config.toml").write_text(config.format(disk))
    code, said = drupelet(*words, "-c", tmp_path / "config.toml")
    assert (code, said.count("\n")) == (6, 1)
    assert said.startswith(f"drupelet: {disk}")
    assert "Read-only file system; " in said
