"""The Celery tasks: decode, one call, nothing else. Their arguments are ids; what they mean is in the ledger."""

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
from worker.names import ASSESS, COMPACT, RECONCILE, SCAN, TICK
from worker.service import Service
from worker.settings import Settings
from worker.startup import FAILED, or_exit

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
}
"""A database that is away fails the task at once, before Letta is called; it runs again some seconds later."""


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
def tick(schedule: str) -> None:
    """Scan for one tick of a schedule."""
    try:
        scan.tick(service(), schedule)
    except scan.UnknownName as error:
        logger.warning("a tick for a schedule that is not in force any more: %s", error)


@app.task(name=SCAN, **AWAY)
def list_scan(scan_id: str) -> None:
    """List a scan that was begun elsewhere, or whose worker died."""
    scan.resume(service(), scan_id)


@app.task(name=ASSESS, **AWAY)
def assess(scan_id: str, number: int) -> None:
    """Measure one page of a scan's candidates and plan what is to be compacted."""
    assessing.assess(service(), scan_id, number)


@app.task(name=COMPACT, **AWAY)
def compact(compaction_id: str) -> None:
    """Run one planned compaction."""
    compaction.run(service(), compaction_id)


@app.task(name=RECONCILE, **AWAY)
def sweep() -> None:
    """Set going again what is stuck, and close what is known by now."""
    found = reconcile.sweep(service())
    if found:
        logger.info("the sweep found %s", dict(found))
