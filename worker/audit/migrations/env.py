"""How Alembic runs the ledger's migrations: one at a time, and never behind a lock for long."""

from alembic import context
from sqlalchemy import text

from worker.audit.database import Database
from worker.audit.tables import metadata

ADVISORY_LOCK = 0x1E77A
"""Any number, the same for everybody: two upgrades started at once run one after the other."""


def run() -> None:
    database: Database = context.config.attributes["database"]
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            connection.execute(text("SET LOCAL statement_timeout = '10min'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
        context.run_migrations()


run()
