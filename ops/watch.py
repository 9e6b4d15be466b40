"""Wait for work that others do, and show how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ops.desk import err
from worker.audit.ledger import Ledger
from worker.audit.records import OPEN_STATES, Compaction, Scan, ScanState

LOOK_EVERY = 0.3
"""Seconds between two looks at the ledger."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A scan as it was when the waiting ended; over: whether all of it had ended by then."""

    scan: Scan
    over: bool


def watch_scan(
    ledger: Ledger, scan_id: str, *, patience: float | None = None, enough: Callable[[], bool] | None = None
) -> Watched:
    """Wait until a scan and its compactions have ended; gives up after patience seconds, or once enough says so."""
    give_up_at = None if patience is None else time.monotonic() + patience
    with _progress() as progress:
        pages = progress.add_task("conversations measured", total=None)
        closed = progress.add_task("compactions closed", total=None)
        while True:
            scan = ledger.scans.get(scan_id)
            if scan is None:
                raise LookupError(f"there is no scan {scan_id} in the ledger")
            done = ledger.reports.progress(scan_id)
            total = scan.listed if scan.listing_done else None
            progress.update(pages, completed=sum(scan.reasons.values()), total=total)
            progress.update(closed, completed=done.closed, total=done.planned or (1 if scan.finished_at else None))
            over = scan.state != ScanState.RUNNING and done.closed == done.planned
            tired = give_up_at is not None and time.monotonic() > give_up_at
            if over or tired or (enough is not None and enough()):
                return Watched(scan, over)
            time.sleep(LOOK_EVERY)


def watch_compaction(ledger: Ledger, compaction_id: str) -> Compaction:
    """Wait until one compaction has ended."""
    with _progress() as progress:
        task = progress.add_task("planned", total=None)
        while True:
            row = ledger.compactions.get(compaction_id)
            if row is None:
                raise LookupError(f"there is no compaction {compaction_id} in the ledger")
            progress.update(task, description=row.state)
            if row.state not in OPEN_STATES:
                return row
            time.sleep(LOOK_EVERY)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
