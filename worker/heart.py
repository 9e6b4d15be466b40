"""The heartbeat: rows that this process works on are shown to be alive, so that slow is never taken for dead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from worker.audit.database import LedgerError
from worker.audit.ledger import Ledger
from worker.clock import Clock

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""A lease survives two beats that did not come through."""


class Heart:
    """A thread that renews the leases of the rows in its care, all of them in one statement a beat."""

    def __init__(self, ledger: Ledger, owner: str, lease: timedelta, now: Clock) -> None:
        self._ledger, self._owner, self._lease, self._now = ledger, owner, lease, now
        self._rows: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self._thread.start()

    @contextmanager
    def over(self, compaction_id: str) -> Iterator[bool]:
        """Keep a row alive while the block runs, from before it is claimed. Gives whether the caller may be at it.

        The threads of a process have one name in the ledger. One that stood still while its row was taken over and
        given back would take a later claim of another thread for its own: only one may be at a row.
        """
        with self._lock:
            alone = compaction_id not in self._rows
            self._rows.add(compaction_id)
        try:
            yield alone
        finally:
            if alone:
                with self._lock:
                    self._rows.discard(compaction_id)

    def close(self) -> None:
        """Stop beating."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._lease.total_seconds() / BEATS_PER_LEASE):
            with self._lock:
                rows = sorted(self._rows)
            if not rows:
                continue
            try:
                self._ledger.compactions.renew(rows, owner=self._owner, lease_until=self._now() + self._lease)
            except LedgerError as error:
                logger.warning("the leases of %d compactions could not be renewed: %s", len(rows), error)
