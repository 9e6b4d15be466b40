"""A ledger filled with a year of work: loaded the fast way of each database, then upgraded as an operator would."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url

from benchmarks.ledgerrows import COMPACTION_COLUMNS, CONVERSATION_COLUMNS, SCAN_COLUMNS, Row, Year
from worker.audit import database as audit_database
from worker.audit.database import Database, upgrade

BEFORE_TOTALS = "0003"
"""The schema that the rows are loaded into: what later ones derive from them, their migrations have to make."""

AT_ONCE = 5_000


def fill(url: str, year: Year) -> None:
    """Fill an empty database, say how long each part took, and leave it at this release's schema."""
    database = Database(url)
    config = Config()
    config.set_main_option("script_location", str(audit_database.MIGRATIONS))
    config.attributes["database"] = database
    command.upgrade(config, BEFORE_TOTALS)
    for table, columns, rows in (
        ("scans", SCAN_COLUMNS, year.scans()),
        ("conversations", CONVERSATION_COLUMNS, year.conversation_rows()),
        ("compactions", COMPACTION_COLUMNS, year.compaction_rows()),
    ):
        began = time.monotonic()
        load = _into_sqlite if database.engine.dialect.name == "sqlite" else _into_postgres
        load(url, table, columns, rows)
        print(f"  loaded {table} in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    upgrade(database)
    print(f"  upgraded it to this release's schema in {time.monotonic() - began:.1f} s", flush=True)
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        # What autovacuum does on PostgreSQL some time after such a load; SQLite is left as it is used.
        if connection.dialect.name == "postgresql":
            connection.execute(text("VACUUM ANALYZE"))
        else:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _into_postgres(url: str, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    copying = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor, cursor.copy(copying) as copy:
        for row in rows:
            copy.write_row(row)


def _into_sqlite(url: str, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    names = ", ".join(f'"{column}"' for column in columns)
    places = ", ".join("?" * len(columns))
    connection = sqlite3.connect(Path(make_url(url).database or ""), isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    plain = (tuple(map(_plain, row)) for row in rows)
    for batch in _batches(plain):
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", batch)  # noqa: S608 - our own names
        connection.execute("COMMIT")
    connection.close()


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, AT_ONCE)):
        yield batch


def _plain(value: Any) -> Any:
    """Write a time as the ledger's SQLite keeps it."""
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value
