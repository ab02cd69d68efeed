"""One fleet a test, on SQLite and on PostgreSQL; a clock that moves when it is told to; devices that obey."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from drupelet.durable import PosixDisk
from drupelet.fleet.store.engine import Store, migrate, open_store
from drupelet.fleet.store.schema import metadata
from drupelet.trust.director import Director
from drupelet.trust.keys import KeyRing
from tests.fakes.postgres import PostgresCluster, missing
from tests.fleet.client import OPEN
from tests.fleet.world import World


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    if why := missing():
        pytest.skip(why)
    started = PostgresCluster()
    try:
        store = open_store(started.url)
        migrate(store)
        store.close()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "fleet.db"
    store = open_store(f"sqlite:///{path}")
    migrate(store)
    store.close()  # the last connection folds the log into the file
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        path = tmp_path / "fleet.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        opened = open_store(f"sqlite:///{path}")
        event.listen(opened.engine, "connect", _not_durably)
    else:
        cluster: PostgresCluster = request.getfixturevalue("cluster")
        cluster.empty([table.name for table in reversed(metadata.sorted_tables)])
        opened = open_store(cluster.url)
    yield opened
    opened.close()


def _not_durably(connection: Any, _record: Any) -> None:
    """No test cuts the power under a database; waiting for the disk is most of their time."""
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("keys") / "ring"
    now = datetime(2026, 9, 1, tzinfo=UTC)
    return KeyRing.create(
        PosixDisk(), folder, families=["kiosk"], passphrase=lambda: "a long test passphrase", now=now, root_keys=1,
        threshold=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def director(keys: KeyRing) -> Director:
    online = next(key.name for key in keys.info.keys if key.repository == "director" and "timestamp" in key.roles)
    return Director(roots=[keys.director_root], signer=keys.signer(online))


@pytest.fixture
def world(store: Store, director: Director) -> World:
    return World(store, director)


@pytest.fixture(autouse=True)
def _closed_clients() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()
