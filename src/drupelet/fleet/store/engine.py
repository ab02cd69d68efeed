"""Opening the database: SQLite in WAL mode with full sync, or PostgreSQL; migrations; short transactions.

On SQLite a writer says BEGIN IMMEDIATE, so that two writers wait for each other at the start instead of failing in the
middle; readers never wait. When `write` returns, the transaction is durable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from drupelet.core.errors import BadInput
from drupelet.fleet.errors import StoreUnavailable

BUSY_MS = 10_000
"""How long a SQLite writer waits for another one."""
POOL_SIZE = 8
_WRITES = "drupelet_writes"


class Store:
    """Transactions over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the embedded engine is used."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run a transaction that may write; durable when the context ends without an error."""
        with self._begin(writes=True) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run a transaction that only reads, on one snapshot."""
        with self._begin(writes=False) as connection:
            yield connection

    @contextmanager
    def _begin(self, *, writes: bool) -> Iterator[Connection]:
        try:
            with self.engine.connect().execution_options(**{_WRITES: writes}) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            raise StoreUnavailable(
                f"the database cannot serve: {str(error.orig).splitlines()[0] if error.orig else error}",
                where=self.engine.url.render_as_string(hide_password=True),
                fix="check that it runs, has space, and is not locked by another program",
            ) from error

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_store(url: str) -> Store:
    """Open a database by its SQLAlchemy URL, `sqlite:////var/lib/drupelet/fleet.db` or `postgresql+psycopg://...`."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadInput("the database URL does not parse", fix="for example sqlite:////var/lib/fleet.db") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise BadInput("an in-memory database forgets the fleet", fix="name a file: sqlite:////path/fleet.db")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed, connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000}, pool_size=POOL_SIZE
        )
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    elif backend == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_size=POOL_SIZE, pool_pre_ping=True,
            isolation_level="READ COMMITTED",
        )  # fmt: skip
    else:
        raise BadInput(f"database {backend!r} is not supported", fix="use sqlite or postgresql")
    return Store(engine)


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are ours to begin
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(store: Store) -> None:
    """Bring the schema to this release's version; does nothing if it is there."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("drupelet.fleet.store") / "migrations"))
    try:
        with store.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise StoreUnavailable(
            f"the schema could not be brought up to date: {str(error.orig).splitlines()[0]}",
            where=store.engine.url.render_as_string(hide_password=True),
        ) from error
