"""A real `llama-server` for tests, or a skip that says how to get one."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from drupelet.engine.levels import VARIABLE, find
from drupelet.forge.toolchain.venvs import cache_folder


def native_server() -> Path:
    """Return the best `llama-server` of the forge's cache for this CPU; skips the test if none was built here."""
    named = os.environ.get(VARIABLE)
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "none")
    built = sorted((cache_folder() / "tools").glob(f"llama-server-{arch}-*[0-9a-f]"))
    folders = [Path(named)] if named else [folder for folder in built if folder.is_dir() and not folder.suffix]
    if not folders:
        pytest.skip(f"no llama-server was built here: drupelet forge toolchain build llama-server-{arch}")
    return find(folders[-1])[0]
