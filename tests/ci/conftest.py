"""Somebody's repository, as a pipeline finds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.loopback import KIOSK, ROOT


def git(folder: Path, *words: str) -> None:
    """Run git without anybody's settings."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def make_repository(folder: Path, *, version: str = "1.2") -> Path:
    """A shop's repository: the kiosk's recipe and checkpoint, a policy, a test, a runtime image."""
    home = folder / "models" / "kiosk"
    shutil.copytree(KIOSK / version, home / "checkpoint")
    shutil.copy(KIOSK / "recipe.toml", home)
    shutil.copy(ROOT / "demo" / "policy.toml", folder)
    for name, text in {
        "runtime/Containerfile": "FROM scratch\n",
        "tests/test_recipe.py": "def test_shop_is_open():\n    assert 8 < 19\n",
        ".gitignore": "/build/\n/.cache/\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", ".")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    return make_repository(folder)
