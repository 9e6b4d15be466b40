"""The ledger: one database, and what is done with its nouns."""

from __future__ import annotations

from worker.audit.compactions import Compactions
from worker.audit.conversations import Conversations
from worker.audit.database import Database, require_head
from worker.audit.openrows import OpenRows
from worker.audit.reports import Reports
from worker.audit.safetycopies import SafetyCopies
from worker.audit.scans import Scans
from worker.audit.throttles import Throttles


class Ledger:
    """What was seen, decided and done. Plain synchronous SQL: call it from a thread, never from the event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.scans = Scans(database)
        self.conversations = Conversations(database)
        self.compactions = Compactions(database)
        self.open_rows = OpenRows(database)
        self.throttles = Throttles(database)
        self.safety_copies = SafetyCopies(database)
        self.reports = Reports(database)

    @classmethod
    def open(cls, url: str) -> Ledger:
        """Open the ledger at a SQLAlchemy URL; refuses a schema that is not this release's."""
        database = Database(url)
        try:
            require_head(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Give the database's connections back."""
        self.database.close()
