from __future__ import annotations

import os
from pathlib import Path

import pytest

from drupelet.trust import KeyRing
from tests.fakes.soft_token import SoftToken, make_token
from tests.fakes.trust_world import TrustWorld, make_keys


@pytest.fixture(scope="session")
def shared_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Keys that no test changes: making them takes most of a test's time."""
    return make_keys(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture
def world(tmp_path: Path, shared_keys: KeyRing) -> TrustWorld:
    return TrustWorld(tmp_path, shared_keys)


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> SoftToken:
    """One token a process: a driver is loaded once and keeps its settings."""
    made = make_token(tmp_path_factory.mktemp("token"))
    made.make_key(7)
    os.environ.update(made.environment)
    return made
