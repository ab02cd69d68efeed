"""A real `llama-server` for tests, or a skip that says how to get one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drupelet.engine.levels import VARIABLE, find
from drupelet.forge.toolchain.venvs import cache_folder


def native_server() -> Path:
    """Return the best `llama-server` of the forge's cache for this CPU; skips the test if none was built here."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else sorted((cache_folder() / "servers").glob("*-amd64"))
    if not folders:
        pytest.skip("no llama-server was built here: drupelet forge toolchain servers")
    return find(folders[-1])[0]
