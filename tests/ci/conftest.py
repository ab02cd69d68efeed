"""Somebody's repository, as a pipeline finds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.loopback import KIOSK, ROOT, slim_recipe
from tests.fakes.trust_world import make_keys


def git(folder: Path, *words: str) -> None:
    """Run git without anybody's settings."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


PUBLIC = ("keyring.json", "image-root.json", "director-root.json")


def make_repository(folder: Path, *, keys: Path) -> Path:
    """A shop's repository: the kiosk's recipe and checkpoint, a policy, the public half of `keys`, a test, an image."""
    home = folder / "models" / "kiosk"
    shutil.copytree(KIOSK / "1.2", home / "checkpoint")
    (home / "recipe.toml").write_text(slim_recipe())
    shutil.copy(ROOT / "demo" / "policy.toml", folder)
    (folder / "keys").mkdir()
    for name in PUBLIC:
        shutil.copy(keys / name, folder / "keys")
    for name, text in {
        "runtime/Containerfile": "FROM scratch\n",
        "tests/test_recipe.py": "def test_shop_is_open():\n    assert 8 < 19\n",
        ".gitignore": "/build/\n/.cache/\n/keys/private/\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", ".")
    return folder


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key ring of the family kiosk, with its private keys."""
    folder = tmp_path_factory.mktemp("ring") / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, ring: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    return make_repository(folder, keys=ring)
