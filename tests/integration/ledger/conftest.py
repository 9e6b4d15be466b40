"""The ledger on each of its databases: every test of this folder runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator

import pytest

from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """An empty ledger, its schema at head."""
    database = Database(database_url)
    upgrade(database)
    yield Ledger(database)
    database.close()
