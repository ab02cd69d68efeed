from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.depot.oci import Reference, Registry
from drupelet.depot.oci.session import Session
from tests.fakes.registry_server import RegistryServer, registry_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Debian's docker-registry, one for all tests of this process."""
    with registry_server(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def repository(server: RegistryServer, request: pytest.FixtureRequest) -> str:
    """The address of a repository of this test's own."""
    return f"oci://{server.host}/test/r{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials and no unfinished uploads but the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DRUPELET_OCI_USERNAME"):
        monkeypatch.delenv(name, raising=False)


def registry(address: str, *, piece_bytes: int = 1 << 20) -> Registry:
    """Return a client that does not wait between attempts."""
    session = Session(Reference.parse(address).repository, sleep=lambda _: None)
    return Registry(session, piece_bytes=piece_bytes)
