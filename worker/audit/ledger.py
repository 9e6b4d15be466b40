"""The ledger: one database, and what is done with its nouns."""

from __future__ import annotations

from worker.audit.announcer import Announcer
from worker.audit.compactions import Compactions
from worker.audit.conversations import Conversations
from worker.audit.database import Database, require_head
from worker.audit.deliveries import Deliveries
from worker.audit.events import Events
from worker.audit.monitoring import Monitoring
from worker.audit.openrows import OpenRows
from worker.audit.reports import Reports
from worker.audit.safetycopies import SafetyCopies
from worker.audit.scans import Scans
from worker.audit.throttles import Throttles
from worker.audit.totals import Answers
from worker.audit.watches import Watches


class Ledger:
    """What was seen, decided and done. Plain synchronous SQL: call it from a thread, never from the event loop.

    announcer: who is told when something is closed; without one nobody is.
    """

    def __init__(self, database: Database, announcer: Announcer | None = None) -> None:
        self.database = database
        self.scans = Scans(database, announcer)
        self.conversations = Conversations(database)
        self.compactions = Compactions(database, announcer)
        self.open_rows = OpenRows(database)
        self.throttles = Throttles(database)
        self.safety_copies = SafetyCopies(database)
        self.events = Events(database)
        self.watches = Watches(database)
        self.deliveries = Deliveries(database)
        self.answers = Answers(database)
        self.monitoring = Monitoring(database)
        self.reports = Reports(database)

    @classmethod
    def open(cls, url: str, announcer: Announcer | None = None) -> Ledger:
        """Open the ledger at a SQLAlchemy URL; refuses a schema that is not this release's."""
        database = Database(url)
        try:
            require_head(database)
        except BaseException:
            database.close()
            raise
        return cls(database, announcer)

    def close(self) -> None:
        """Give the database's connections back."""
        self.database.close()
