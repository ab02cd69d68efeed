"""The schema: migrations make what the code declares; a database that is gone is said plainly."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from drupelet.core.errors import BadInput
from drupelet.fleet.errors import StoreUnavailable
from drupelet.fleet.store.engine import Store, migrate, open_store
from drupelet.fleet.store.schema import metadata


def test_migrations_make_the_declared_schema(store: Store) -> None:
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_migrating_twice_changes_nothing(store: Store) -> None:
    migrate(store)
    migrate(store)


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "mysql://x/y", "not a url"])
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(BadInput):
        open_store(url)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    store = open_store(f"postgresql://nobody@/none?host={tmp_path}&connect_timeout=1")
    with pytest.raises(StoreUnavailable, match="cannot serve"), store.read():
        pass
    store.close()


def test_a_damaged_file_is_said_plainly(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"this is no database at all " * 100)
    store = open_store(f"sqlite:///{path}")
    with pytest.raises(StoreUnavailable):
        migrate(store)
    store.close()
