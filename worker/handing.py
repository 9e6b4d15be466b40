"""Hand planned compactions to the broker, and note in the ledger that it was done."""

from __future__ import annotations

from collections.abc import Sequence

from worker.service import Service
from worker.telemetry.telling import order_line


def hand_out(service: Service, compaction_ids: Sequence[str], *, delay: float = 0) -> None:
    """Send a message for each row; those that the broker did not take stay for the sweep.

    Noted first, sent then: a worker that takes a message and finds no room for its row takes the note back, and it may
    be faster than this process.
    """
    if not compaction_ids:
        return
    planned = service.ledger.compactions.enqueued(compaction_ids, now=service.now())
    lines = {row.id: order_line(row) for row in planned}
    unsent = [
        one for one in compaction_ids if not service.outbox.compaction(one, told=lines.get(one, one), delay=delay)
    ]
    if unsent:
        service.ledger.compactions.not_enqueued(unsent)
