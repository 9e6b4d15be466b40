"""Look at every conversation of the server: list, leave out what cannot need it, measure the rest, decide, plan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from worker.audit.conversations import Observation
from worker.audit.records import Scan
from worker.audit.scans import LostScan, ScanOrder
from worker.candidates import Batch, Candidate, candidates_of, observation, sighting
from worker.letta.errors import LettaError
from worker.letta.meter import Meter, metered
from worker.letta.models import Unreadable
from worker.logs.about import about
from worker.loop import Interrupted
from worker.policy.decide import Reason, screen
from worker.policy.rules import Policy
from worker.service import Service

logger = logging.getLogger(__name__)


class UnknownName(LookupError):
    """There is no policy, or no schedule, of that name."""


def order(service: Service, *, trigger: str, schedule: str | None = None, policy: str | None = None) -> ScanOrder:
    """Make out what a scan is to run with: a schedule's policy, or the policy named. Raises UnknownName."""
    book = service.policies.book()
    if schedule is not None:
        if schedule not in book.schedules:
            known = ", ".join(sorted(book.schedules)) or "none"
            raise UnknownName(f"there is no schedule {schedule!r} in {service.settings.policy_file}; known: {known}")
        policy = book.schedules[schedule].policy
    name = policy or "default"
    if name not in book.policies:
        known = ", ".join(sorted(book.policies))
        raise UnknownName(f"there is no policy {name!r} in {service.settings.policy_file}; known: {known}")
    rules = book.policies[name]
    return ScanOrder(trigger, schedule, name, rules.version, rules.body())


def tick(service: Service, schedule: str) -> str:
    """Run the scan of one tick of a schedule; a tick that finds the last one's scan running is recorded and skipped."""
    wanted = order(service, trigger="schedule", schedule=schedule)
    scan, opened = service.ledger.scans.begin(wanted, now=service.now(), owner=service.owner, lease=service.scan_lease)
    if not opened:
        logger.warning("%s: skipped: %s", scan.id, scan.sentence)
        return scan.id
    _list_all(service, scan)
    return scan.id


def resume(service: Service, scan_id: str) -> bool:
    """List a scan that was begun elsewhere; False where there is nothing to take up."""
    scan = service.ledger.scans.take(scan_id, now=service.now(), owner=service.owner, lease=service.scan_lease)
    if scan is None:
        finish(service, scan_id)
        return False
    _list_all(service, scan)
    return True


def finish(service: Service, scan_id: str) -> None:
    """Close a scan that has nothing left to do."""
    done = service.ledger.scans.finish(scan_id, now=service.now())
    if done is not None:
        took = ((done.finished_at or done.started_at) - done.started_at).total_seconds()
        logger.info("%s: finished in %.1f s: %d listed, %d planned", done.id, took, done.listed, done.planned)


def listing(service: Service) -> Iterator[Batch]:
    """List everything on the server that a scan looks at, page by page. Raises LettaError."""
    settings = service.settings
    return service.loop.walk(
        lambda letta: candidates_of(
            letta, page_size=settings.page_size, default_conversations=settings.letta_default_conversations
        )
    )


def _list_all(service: Service, scan: Scan) -> None:
    """List a scan's conversations page by page; a page's candidates are committed before anybody measures them."""
    with about(scan_id=scan.id), metered() as meter:
        _list_and_finish(service, scan, meter)


def _list_and_finish(service: Service, scan: Scan, meter: Meter) -> None:
    try:
        seen = service.ledger.scans.listed_already(scan.id)
        policy = Policy.model_validate(scan.policy_body)

        for page in listing(service):
            fresh = [row for row in page if isinstance(row, Unreadable) or row.ref.key not in seen]
            _put_down(service, scan, policy, fresh, meter.take())
        service.ledger.scans.end_listing(scan.id, owner=service.owner, requests=meter.take())
    except LostScan as error:
        logger.warning("%s", error)
        return
    except Interrupted:
        service.ledger.scans.let_go(scan.id, owner=service.owner)
        service.outbox.scan(scan.id)
        return
    except LettaError as error:
        service.ledger.scans.fail(scan.id, f"the conversations could not be listed: {error}", now=service.now())
        logger.error("%s: failed: %s", scan.id, error)  # noqa: TRY400 - one sentence, not a traceback
        return
    finish(service, scan.id)


def _put_down(service: Service, scan: Scan, policy: Policy, page: Batch, requests: int) -> None:
    """Commit one listed page: leave out what cannot need compacting, keep the rest for measuring."""
    now, ledger = service.now(), service.ledger
    readable = [row for row in page if isinstance(row, Candidate)]
    known = ledger.conversations.known([candidate.ref.key for candidate in readable])
    copies = ledger.safety_copies.among([candidate.ref.conversation_id for candidate in readable])
    left_out = [_unreadable(row, scan) for row in page if isinstance(row, Unreadable)]
    to_measure = []
    for candidate in readable:
        seen = sighting(candidate, known.get(candidate.ref.key), is_safety_copy=candidate.ref.conversation_id in copies)
        skip = screen(seen, policy, now)
        if skip is None:
            to_measure.append(candidate)
        else:
            left_out.append(observation(candidate, skip, scan.id))
    ledger.conversations.record([row for row in left_out if row.conversation_id], now=now)
    number = ledger.scans.add_page(
        scan.id,
        owner=service.owner,
        candidates=[candidate.to_json() for candidate in to_measure],
        listed=len(page),
        reasons=Counter(row.reason for row in left_out),
        lease_until=now + service.scan_lease,
        requests=requests,
    )
    if number is not None:
        service.outbox.page(scan.id, number)


def _unreadable(row: Unreadable, scan: Scan) -> Observation:
    """Remember a row that could not be read under what is known of it; its agent is not."""
    sentence = f"the list shows it in a form that cannot be read: {row.error}"
    logger.warning("%s: conversation %s: %s", scan.id, row.id or "(without an id)", sentence)
    return Observation("", row.id or "", None, "skip", Reason.UNREADABLE, sentence, scan.id)
