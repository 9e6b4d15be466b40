"""The names by which tasks and queues are known: on the broker, in beat's schedule, on Flower's pages.

Explicit, so that moving a function never strands a message.
"""

from __future__ import annotations

TICK = "compactor.tick"
SCAN = "compactor.scan"
ASSESS = "compactor.assess"
COMPACT = "compactor.compact"
RECONCILE = "compactor.reconcile"
EVENTS = "compactor.events"
ATTEND = "compactor.attend"
NOTIFY = "compactor.notify"

SCAN_QUEUE = "scan"
COMPACT_QUEUE = "compact"
