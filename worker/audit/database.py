"""The ledger's database: how it is opened, upgraded, and refused when its schema is not this release's."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.pool import ConnectionPoolEntry

SQLITE_BUSY_TIMEOUT = 30_000
"""Milliseconds a writer waits for another before it gives up."""

SWITCH_PAUSE = 0.02
"""Seconds between two tries of a new file's switch to WAL."""

CONNECT_TIMEOUT = 5
"""Seconds to wait for PostgreSQL to take a connection: a worker must notice soon that it is away."""

LINK = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How libpq notices that a network has gone without a word: within half a minute, where the system would take hours."""

NO_CONNECTION = "none of this process's connections to it came free in time; lower COMPACTOR_CONCURRENCY"

PERMISSION_DENIED = "42501"
"""PostgreSQL's code for a user who may not do this."""

READ_ONLY = "25006"
"""Its code for a write to a server that takes none: the standby of a failover that is still under way."""

UPGRADE = "compactor db upgrade"
MIGRATIONS = Path(__file__).parent / "migrations"


class LedgerError(Exception):
    """Something is wrong with the ledger; the message says what and what to do."""


class LedgerUnavailable(LedgerError):
    """The database cannot be reached or gave up; what was asked for has not happened and may be asked again."""


class SchemaMismatch(LedgerError):
    """The database's schema is not the one that this release knows."""


class Database:
    """One engine with two ways in: `read()` and `write()`, each one transaction.

    On SQLite a write takes the write lock at once (BEGIN IMMEDIATE): a reader that turned into a writer half-way
    could not wait for its turn, it could only fail.
    """

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        self.shown_url = self.url.render_as_string(hide_password=True)
        self.engine = _engine(self.url)
        self._writer = self.engine.execution_options(immediate=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction for reading."""
        with self._told(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction for writing, committed at the end of the block."""
        with self._told(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a lost or missing database into an error that an operator can act on."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise LedgerUnavailable(f"the ledger at {self.shown_url} is not available: {_cause(error)}") from error
        except NoFreeConnection as error:
            raise LedgerUnavailable(f"the ledger at {self.shown_url} is not available: {NO_CONNECTION}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise LedgerUnavailable(f"the connection to the ledger at {self.shown_url} was lost") from error
            if _sqlstate(error) == READ_ONLY:
                raise LedgerUnavailable(f"the ledger at {self.shown_url} is not available: {_cause(error)}") from error
            # SQLite's bare DatabaseError is for a file that is none of its own, or is damaged.
            if type(error) is DatabaseError or _sqlstate(error) == PERMISSION_DENIED:
                raise LedgerError(f"the ledger at {self.shown_url} cannot be used: {_cause(error)}") from error
            raise


def _sqlstate(error: DBAPIError) -> str | None:
    """Give PostgreSQL's code of what went wrong; SQLite has none."""
    return getattr(error.orig, "sqlstate", None)


def _cause(error: DBAPIError) -> str:
    """Give the first line of what the driver says: the rest may be a statement."""
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else "no reason given"


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        if url.database:
            _make_folder(Path(url.database).parent)
        engine = create_engine(
            url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT / 1000}, max_overflow=40, hide_parameters=True
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_pre_ping=True,
        max_overflow=40,
        connect_args=LINK,
        hide_parameters=True,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise LedgerUnavailable(f"the ledger's folder {folder} cannot be made: {why}") from error


def _prepare_sqlite(connection: object, _entry: ConnectionPoolEntry) -> None:
    """Leave the transactions to `_begin_sqlite`, let readers and a writer live together, and be durable."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in (
        f"busy_timeout = {SQLITE_BUSY_TIMEOUT}",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    _use_wal(cursor)
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch to WAL; of several that open a new file at once, SQLite makes none wait for the switch but fails it."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(SWITCH_PAUSE)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _script() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def head() -> str:
    """Give the schema revision that this release knows."""
    revision = _script().get_current_head()
    if revision is None:
        raise LedgerError("this installation carries no migrations: install it again")
    return revision


def current(database: Database) -> str | None:
    """Give the schema revision that the database is at; None for an empty one."""
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_head(database: Database) -> None:
    """Refuse a database whose schema is older or newer than this release's; the message carries the command."""
    found, wanted = current(database), head()
    if found == wanted:
        return
    if found is None:
        raise SchemaMismatch(f"the ledger at {database.shown_url} has no schema yet: run `{UPGRADE}`")
    if found in {revision.revision for revision in _script().walk_revisions()}:
        raise SchemaMismatch(
            f"the ledger at {database.shown_url} is at schema {found}, older than {wanted}: run `{UPGRADE}`"
        )
    raise SchemaMismatch(
        f"the ledger at {database.shown_url} is at schema {found}, which this release does not know: it is newer. "
        f"Install the release that wrote it; `{UPGRADE}` of that one brings it up to date"
    )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to this release's. Gives the revisions before and after; safe to run twice, or at once."""
    before = current(database)
    if before is not None and before not in {revision.revision for revision in _script().walk_revisions()}:
        require_head(database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database"] = database
    command.upgrade(config, "head")
    return before, head()
