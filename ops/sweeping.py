"""The command that tidies up: `reconcile`."""

from __future__ import annotations

import time
from collections import Counter

import typer

from ops import desk
from ops.scanning import Json, Wait
from ops.view import show_compactions
from worker import reconcile
from worker.audit.records import State
from worker.audit.reports import Wanted
from worker.broker import CeleryOutbox, make_app
from worker.service import Service
from worker.telemetry.telling import counts_line

SWEEP_EVERY = 2.0
"""Seconds between two sweeps of `--wait`."""


def reconcile_command(wait: Wait = False, as_json: Json = False) -> None:
    """Bring every open row to its true end, from what the server says.

    The schedules do the same every COMPACTOR_RECONCILE_EVERY seconds. A row whose worker may only be slow is watched
    for COMPACTOR_LEASE seconds before it is touched, and a POST whose answer was lost is not repeated within
    LETTA_SERVER_LIMIT: `--wait` stays until nothing is left to find out, a single sweep does what can be done at once.

    Exit status 1 where something could not be decided: such a row is closed as failed, with the evidence.
    """
    settings = desk.settings()
    with desk.service(settings, CeleryOutbox(make_app("cli", settings))) as service:
        began = service.now()
        found = reconcile.sweep(service)
        with desk.err.status("watching what is left ..."):
            while wait and _left(service):
                time.sleep(SWEEP_EVERY)
                found += reconcile.sweep(service)
        left = _left(service)
        undecided = [
            row
            for row in service.ledger.reports.compactions(Wanted(state=State.FAILED), limit=1000)
            if row.outcome == "undecided" and row.finished_at is not None and row.finished_at >= began
        ]
    _show(found, left, as_json=as_json)
    if undecided:
        if not as_json:
            show_compactions(desk.err, undecided)
        raise typer.Exit(desk.FAILED)


def _left(service: Service) -> int:
    return len(service.ledger.open_rows.abandoned(now=service.now(), limit=reconcile.AT_ONCE))


def _show(found: Counter[str], left: int, *, as_json: bool) -> None:
    if as_json:
        desk.show_json({"found": dict(found), "left": left})
        return
    desk.out.print(f"the sweep found {counts_line(found) or 'nothing to do'}", markup=False)
    if left:
        desk.out.print(f"{left} rows wait: their worker may live, or the server may still be at it; see --wait")
