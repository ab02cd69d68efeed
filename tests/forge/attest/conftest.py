from __future__ import annotations

import pytest

from drupelet.trust import KeyRing
from tests.fakes.trust_world import make_keys


@pytest.fixture(scope="session")
def shared_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Keys that no test changes."""
    return make_keys(tmp_path_factory.mktemp("keys") / "keys")
