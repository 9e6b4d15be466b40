"""A ledger that is away, locked or lost: one sentence that says where, and never a password."""

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL, make_url

from tests.support.postgres import admin_of, end_connections
from tests.support.rows import NOW, order, planned, skipped
from worker.audit import database as audit_database
from worker.audit.database import Database, LedgerUnavailable, require_head, upgrade
from worker.audit.ledger import Ledger

SECRET = "s3cret-passw0rd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def on_postgres(postgres_url: str) -> Iterator[Ledger]:
    database = Database(postgres_url)
    upgrade(database)
    yield Ledger(database)
    database.close()


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Iterator[Ledger]:
    database = Database(sqlite_url)
    upgrade(database)
    yield Ledger(database)
    database.close()


def test_a_postgres_that_is_down_is_named_without_its_password() -> None:
    port = free_port()
    database = Database(f"postgresql+psycopg://compactor:{SECRET}@127.0.0.1:{port}/ledger")
    for attempt in (require_head, upgrade):
        with pytest.raises(LedgerUnavailable, match=r"is not available: ") as caught:
            attempt(database)
        assert f"compactor:***@127.0.0.1:{port}/ledger" in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert SECRET not in database.shown_url
    database.close()


def test_a_postgres_without_the_database_is_told(postgres_server: URL) -> None:
    database = Database(
        postgres_server.set(drivername="postgresql+psycopg", database="no_such_database").render_as_string(
            hide_password=False
        )
    )
    with pytest.raises(LedgerUnavailable, match="no_such_database"):
        require_head(database)
    database.close()


def test_the_next_call_after_a_restart_of_postgres_simply_works(on_postgres: Ledger, postgres_server: URL) -> None:
    planned(on_postgres)
    end_connections(postgres_server)
    assert len(list(on_postgres.conversations.listing())) == 1


def test_a_connection_that_is_lost_within_a_transaction_is_told_as_a_ledger_that_is_away(
    on_postgres: Ledger, postgres_server: URL
) -> None:
    def lose_it() -> None:
        with on_postgres.database.write() as connection:
            end_connections(postgres_server)
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(LedgerUnavailable):
        lose_it()
    assert on_postgres.compactions.plan(order(), now=NOW).outcome == "planned"


def test_a_server_that_takes_no_writes_is_told_as_a_ledger_that_is_away(on_postgres: Ledger) -> None:
    def write_on_a_standby() -> None:
        with on_postgres.database.write() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql("DELETE FROM events")

    with pytest.raises(LedgerUnavailable, match="is not available: cannot execute DELETE in a read-only transaction"):
        write_on_a_standby()


def test_a_sqlite_ledger_is_in_wal_mode_durable_and_holds_to_its_foreign_keys(on_sqlite: Ledger) -> None:
    with on_sqlite.database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_sqlite_ledger_can_be_read_while_another_writes(on_sqlite: Ledger) -> None:
    planned(on_sqlite)
    with on_sqlite.database.write():
        assert len(list(on_sqlite.conversations.listing())) == 1


def test_a_sqlite_ledger_that_stays_locked_is_told(
    on_sqlite: Ledger, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_database, "SQLITE_BUSY_TIMEOUT", 50)
    impatient = Database(sqlite_url)
    with (
        on_sqlite.database.write(),
        pytest.raises(LedgerUnavailable, match=r"ledger\.db is not available: database is locked"),
    ):
        Ledger(impatient).conversations.record([skipped("conv-1")], now=NOW)
    Ledger(impatient).conversations.record([skipped("conv-1")], now=NOW)
    impatient.close()


def test_the_folder_of_a_sqlite_ledger_is_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new' / 'folder' / 'ledger.db'}")
    upgrade(database)
    database.close()
    assert (tmp_path / "new" / "folder" / "ledger.db").is_file()


def test_a_sqlite_ledger_that_is_a_folder_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}")
    with pytest.raises(LedgerUnavailable, match="unable to open database file"):
        require_head(database)
    database.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is a diary, not a database" * 50)
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(audit_database.LedgerError, match="file is not a database"):
        require_head(database)
    database.close()


def test_a_user_who_may_not_make_tables_is_told(postgres_server: URL) -> None:
    role = f"compactor_test_{uuid4().hex}"
    url = postgres_server.set(drivername="postgresql+psycopg", username=role, password=SECRET)
    with admin_of(postgres_server) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
        try:
            database = Database(url.render_as_string(hide_password=False))
            with pytest.raises(audit_database.LedgerError, match="permission denied for schema public") as caught:
                upgrade(database)
            assert SECRET not in str(caught.value)
            database.close()
        finally:
            admin.execute(f"DROP ROLE {role}")


def test_a_ledger_survives_its_process(on_sqlite: Ledger, sqlite_url: str) -> None:
    id_ = planned(on_sqlite)
    on_sqlite.close()
    with sqlite3.connect(make_url(sqlite_url).database or "") as other:
        assert other.execute("SELECT id FROM compactions").fetchall() == [(id_,)]
    other.close()
