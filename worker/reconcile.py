"""Bring every open row to its true end: what nobody started, what nobody is at, and what nobody knows the end of."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta

from worker import safety
from worker.audit.compactions import LostClaim
from worker.audit.database import LedgerError
from worker.audit.openrows import Abandoned
from worker.audit.records import Compaction
from worker.contract.compaction import CompactionResponse
from worker.discretion import named
from worker.ending import close_failed, give_back
from worker.handing import hand_out
from worker.letta.client import Letta
from worker.letta.errors import LettaError, NotFound
from worker.letta.summaries import summary_text
from worker.logs.about import about
from worker.look import find_message
from worker.loop import Interrupted
from worker.measure import Ref, in_context_ids
from worker.pushback import note_success
from worker.service import Service
from worker.telemetry.tracing import continued
from worker.verify import prove_and_close
from worker.vigil import POST_WITHIN
from worker.webhooks import backlog

logger = logging.getLogger(__name__)

AT_ONCE = 200
"""Rows that one sweep deals with; the next one takes the next."""

LONGEST_SCAN = timedelta(days=1)
"""A scan that runs for longer is closed as failed: as long as it runs, its schedule begins no other."""

FAULT_PATIENCE = timedelta(days=1)
"""How long a row that trips over a fault of our own is tried again: time to install a release without the fault."""


def sweep(service: Service) -> Counter[str]:
    """Find what is stuck and set it going again. Gives how many of each kind were found."""
    found: Counter[str] = Counter()
    now, ledger = service.now(), service.ledger
    for scan_id in ledger.scans.overdue(begun_before=now - LONGEST_SCAN):
        found["scans_given_up"] += 1
        ledger.scans.fail(scan_id, f"it did not end within {LONGEST_SCAN}", now=now)
        logger.error("%s did not end within %s and is closed as failed", scan_id, LONGEST_SCAN)
    for scan_id in ledger.scans.stuck(now=now):
        found["scans"] += 1
        for number in ledger.scans.open_pages(scan_id, now=now):
            service.outbox.page(scan_id, number)
        service.outbox.scan(scan_id)
    patience = timedelta(seconds=service.settings.message_patience)
    unclaimed = ledger.open_rows.unclaimed(now=now, patience=patience, limit=AT_ONCE)
    found["unclaimed"] += len(unclaimed)
    hand_out(service, unclaimed)
    for abandoned in ledger.open_rows.abandoned(now=now, limit=AT_ONCE):
        with service.heart.over(abandoned.id) as alone:
            row = _take_over(service, abandoned) if alone else None
            if row is not None:
                with about(
                    compaction_id=row.id,
                    agent_id=row.agent_id,
                    conversation_id=row.conversation_id,
                    scan_id=row.scan_id,
                ):
                    found[_settle(service, row)] += 1
    found["events"] += backlog.resend(service)
    found["safety_copies_removed"] += safety.remove_due(service)
    found["pruned"] += backlog.prune(service)
    return +found


def _take_over(service: Service, abandoned: Abandoned) -> Compaction | None:
    """Take a row over whose owner has shown no sign of life: by its lease, and as far as this process has watched.

    A row that was left on purpose has no owner to wait for.
    """
    silent_for = service.vigil.unmoved(f"heart of {abandoned.id}", abandoned.heartbeats)
    if abandoned.owned and silent_for < service.lease:
        return None
    return service.ledger.compactions.take_over(
        abandoned.id,
        now=service.now(),
        owner=service.owner,
        lease=service.lease,
        heartbeats=abandoned.heartbeats,
    )


def _settle(service: Service, row: Compaction) -> str:
    """Find out what became of a row whose worker is gone, and act on it."""
    with continued(row.trace, "recovery", compaction_id=row.id):
        return _find_out(service, row)


def _find_out(service: Service, row: Compaction) -> str:
    try:
        if row.response is not None:
            return prove_and_close(service, row)
        if row.posted_at is None:
            return give_back(service, row, row.error or "its worker died before anything was sent")
        return _look_for_effect(service, row)
    except LostClaim as error:
        logger.warning("%s", error)
        return "taken_over"
    except LedgerError:
        raise
    except Exception as error:
        # A row that trips over a fault of ours must not keep the sweep from the others, nor be open for ever.
        logger.exception("%s could not be brought to an end", row.id)
        what = named(error)
        if service.now() - row.planned_at < FAULT_PATIENCE:
            return _later(service, row, f"a fault of the service itself: {what}")
        return close_failed(service, row, "internal_error", what)


def _look_for_effect(service: Service, row: Compaction) -> str:
    """Tell from the conversation whether a POST whose answer is lost took effect."""
    ref, before = Ref(row.agent_id, row.conversation_id), row.ids_before or []
    # Asked before the look: what is over only by the time of the answer may have taken effect in between.
    over = _is_over(service, row)

    async def ask(letta: Letta) -> tuple[list[str], str | None]:
        ids, _ = await in_context_ids(letta, ref)
        news = [id_ for id_ in ids[1:] if id_ not in before]
        summary = await find_message(letta, ref, news[0]) if news else None
        return ids, None if summary is None else summary_text(summary)

    try:
        ids, summary = service.loop.call(ask)
    except NotFound as error:
        return close_failed(service, row, "not_found", f"its POST was sent, then the conversation was gone: {error}")
    except (LettaError, Interrupted) as error:
        return _later(service, row, f"could not be looked at: {error}")
    evicted = [id_ for id_ in before[1:] if id_ not in set(ids)]
    if not evicted:
        return _no_effect(service, row) if over else _later(service, row, row.error or "its answer was lost")
    if summary is None:
        evidence = f"{len(evicted)} messages left the context, but no summary took their place; in context now: {ids}"
        return close_failed(service, row, "undecided", evidence)
    note_success(service, row.model)
    rebuilt = CompactionResponse(num_messages_before=len(before), num_messages_after=len(ids), summary=summary)
    return prove_and_close(service, row, recovered=rebuilt)


def _is_over(service: Service, row: Compaction) -> bool:
    """Tell whether a POST can take effect no more, by the clock and as far as this process has watched."""
    limit = timedelta(seconds=service.settings.letta_server_limit + POST_WITHIN)
    watched = service.vigil.unmoved(f"post of {row.id}", row.posted_at)
    by_clock = timedelta() if row.posted_at is None else service.now() - row.posted_at
    return min(watched, by_clock) >= limit


def _no_effect(service: Service, row: Compaction) -> str:
    """Try again: a look that was taken when nothing could change any more has shown that nothing had."""
    service.vigil.forget(f"post of {row.id}")
    limit = service.settings.letta_server_limit
    return give_back(service, row, f"no effect within {limit:g} s: {row.error or 'its answer was lost'}")


def _later(service: Service, row: Compaction, error: str) -> str:
    service.ledger.compactions.leave(
        row.id, error, owner=service.owner, look_at=service.now() + service.look_again_after
    )
    return "left"
