"""The Celery tasks: decode, one call, tell. Their arguments are ids; what they mean is in the ledger.

What a task returns is the line that operators read on Flower's pages; one whose work failed fails with such a line.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import signals

from worker import assess as assessing
from worker import compaction, reconcile, scan
from worker.audit.database import LedgerUnavailable
from worker.broker import CeleryOutbox
from worker.celery import app
from worker.logs.about import about
from worker.names import ASSESS, ATTEND, COMPACT, EVENTS, NOTIFY, RECONCILE, SCAN, TICK
from worker.service import Service
from worker.settings import Settings
from worker.startup import FAILED, or_exit
from worker.telemetry.telling import TaskFailed, Told, counts_line, outcome_line, scan_line
from worker.webhooks import events, outgoing, watching

logger = logging.getLogger(__name__)

# One line for each request would bury what the service itself has to say.
logging.getLogger("httpx").setLevel(logging.WARNING)

_service: Service | None = None

AWAY: dict[str, Any] = {
    "autoretry_for": (LedgerUnavailable,),
    "retry_backoff": 2,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 8,
    # Told in the log by whoever failed, where it happened.
    "throws": (TaskFailed,),
}
"""A database that is away fails the task at once, before Letta is called; it runs again some seconds later."""


UNSEEN: dict[str, Any] = {"send_events": False, "ignore_result": True, "throws": (LedgerUnavailable,)}
"""For tasks that run every few seconds and mostly find nothing: on Flower's pages they would bury the others.

The next one comes soon, so that none is retried.
"""


def service() -> Service:
    """Give the process's service, opened when the worker started."""
    if _service is None:
        raise RuntimeError("the worker has not started")
    return _service


@signals.worker_init.connect
def _open(**_: Any) -> None:
    global _service  # noqa: PLW0603 - the process's one service; Celery's signals leave no other place for it
    try:
        _service = or_exit(lambda: Service.open(Settings.load(), CeleryOutbox(app)))
    except Exception:
        # Celery only logs what a signal's receiver raises, and would take tasks that nothing can run.
        logger.exception("the worker cannot start")
        raise SystemExit(FAILED) from None


@signals.worker_shutting_down.connect
def _bound_shutdown(**_: Any) -> None:
    """Celery waits for running tasks without end on this pool: let them go when their grace is over."""
    if _service is not None:
        timer = threading.Timer(_service.settings.shutdown_grace, _service.loop.let_go)
        timer.daemon = True
        timer.start()


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    if _service is not None:
        _service.close()


@app.task(name=TICK, **AWAY)
def tick(schedule: str) -> Told:
    """Scan for one tick of a schedule."""
    try:
        scan_id = scan.tick(service(), schedule)
    except scan.UnknownName as error:
        logger.warning("a tick for a schedule that is not in force any more: %s", error)
        return Told(f"nothing done: {error}")
    return _scan_told(scan_id)


@app.task(name=SCAN, **AWAY)
def list_scan(scan_id: str) -> Told:
    """List a scan that was begun elsewhere, or whose worker died."""
    scan.resume(service(), scan_id)
    return _scan_told(scan_id)


@app.task(name=ASSESS, **AWAY)
def assess(scan_id: str, number: int) -> Told:
    """Measure one page of a scan's candidates and plan what is to be compacted."""
    with about(scan_id=scan_id):
        reasons = assessing.assess(service(), scan_id, number)
    return Told(f"{reasons.total()} decided: {counts_line(reasons)}" if reasons else "nothing left to decide")


@app.task(name=COMPACT, **AWAY)
def compact(compaction_id: str) -> Told:
    """Run one planned compaction."""
    word = compaction.run(service(), compaction_id)
    row = service().ledger.compactions.get(compaction_id)
    return Told(f"nothing done: {compaction_id} is not in the ledger" if row is None else outcome_line(row, word))


@app.task(name=EVENTS, **AWAY)
def handle_events(event_ids: list[str]) -> Told:
    """Find out which conversations webhooks told of, and have them watched."""
    return Told(counts_line(events.handle(service(), event_ids)) or "nothing left to find out")


@app.task(name=ATTEND, **UNSEEN)
def attend() -> None:
    """Decide about the watched conversations that have fallen idle."""
    watching.attend(service())


@app.task(name=NOTIFY, **UNSEEN)
def notify() -> None:
    """Send the service's own webhooks that are due."""
    outgoing.notify(service())


@app.task(name=RECONCILE, **AWAY)
def sweep() -> Told:
    """Set going again what is stuck, and close what is known by now."""
    found = reconcile.sweep(service())
    if found:
        logger.info("the sweep found %s", dict(found))
    return Told(counts_line(found) or "found nothing to do")


def _scan_told(scan_id: str) -> Told:
    row = service().ledger.scans.get(scan_id)
    return Told(f"nothing done: {scan_id} is not in the ledger" if row is None else scan_line(row))
