"""A private PostgreSQL cluster from Debian's package: temporary folder, Unix socket only.

One cluster a session (with pytest-xdist: a worker), one migrated database in it, emptied for each test: making a
database takes ten times as long.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
USER = "postgres"
DATABASE = "postgres"
"""The one that initdb makes."""


def missing() -> str:
    """Return why no cluster can be started, empty if one can."""
    if not BINARIES:
        return "Debian's package postgresql is not installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(USER)
        except KeyError:
            return "PostgreSQL refuses to run as root, and there is no user postgres"
    return ""


class PostgresCluster:
    """A cluster that lives as long as the tests. Durability is off: it is thrown away."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="drupelet-pg-"))
        self._connection: psycopg.Connection[Any] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--locale=C")
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c max_connections=60"
            " -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c autovacuum=off"
        )
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return f"postgresql+psycopg://{USER}@/{DATABASE}?host={self.folder}"

    def empty(self, tables: Sequence[str]) -> None:
        """Remove every row of these tables, children before parents, and let identities begin at 1 again."""
        import psycopg
        from psycopg import sql

        if self._connection is None:
            self._connection = psycopg.connect(host=str(self.folder), user=USER, dbname=DATABASE, autocommit=True)
            self._connection.execute("SET lock_timeout = '10s'")
        restart = sql.SQL("SELECT setval(seqrelid::regclass, 1, false) FROM pg_sequence")
        delete = [sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in tables]
        self._connection.execute(sql.SQL("; ").join([*delete, restart]))

    def stop(self) -> None:
        """Stop the cluster and remove its folder."""
        if self._connection is not None:
            self._connection.close()
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(BINARIES[-1] / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
