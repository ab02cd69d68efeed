from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from drupelet.core.names import Digest
from drupelet.depot import FilesDepot
from drupelet.depot.serve import depot_app
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing
from tests.fakes.azure_server import AzureServer, azure_server
from tests.fakes.released import real_keys
from tests.fakes.s3_server import S3Server, s3_server
from tests.waiting import until

BLOB = random.Random(7).randbytes(300_000)
DIGEST = Digest.of_hex(hashlib.sha256(BLOB).hexdigest())


@pytest.fixture
def disk() -> PosixDisk:
    return PosixDisk()


@pytest.fixture
def depot(tmp_path: Path, disk: PosixDisk) -> FilesDepot:
    """A depot that holds `BLOB`."""
    source = tmp_path / "model.gguf"
    source.write_bytes(BLOB)
    depot = FilesDepot(disk, tmp_path / "depot")
    depot.put(source)
    return depot


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a depot folder by the real server on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(depot_app(folder), log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started, timeout_s=10, what="the depot server")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """An S3 server, one for all tests of this process."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(moto: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The address of an empty prefix in a bucket of its own, and the environment that leads there."""
    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    moto.make_bucket(name)
    for variable, value in moto.environment.items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}/depot"


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzureServer]:
    """Azure's blob service, one for all tests of this process."""
    with azure_server() as server:
        yield server


@pytest.fixture
def container(azurite: AzureServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The address of an empty prefix in a container of its own, and the environment that leads there."""
    name = "c" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    azurite.make_container(name)
    for variable, value in azurite.environment.items():
        monkeypatch.setenv(variable, value)
    return f"az://{name}/depot"


@pytest.fixture(scope="session")
def real_ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Keys for `kiosk`, valid now, that no test changes."""
    return real_keys(tmp_path_factory.mktemp("ring") / "keys")
