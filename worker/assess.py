"""Measure a page of candidates, decide about each, and plan what is to be compacted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from worker import scan as scans
from worker.candidates import Candidate
from worker.judgement import Judged, judge, screened, settle
from worker.letta.meter import metered
from worker.loop import Interrupted
from worker.policy.decide import Reason, Skip
from worker.policy.rules import Policy
from worker.service import Service

MOST_ATTEMPTS = 3
"""Claims of one page before it is given up: a page that kills its worker must not hold its schedule up for ever."""


def assess(service: Service, scan_id: str, number: int) -> Counter[str]:
    """Measure one page of candidates, decide about each, plan and hand out what is to be compacted."""
    ledger = service.ledger
    scan = ledger.scans.get(scan_id)
    page = ledger.scans.claim_page(scan_id, number, now=service.now(), owner=service.owner, lease=service.scan_lease)
    if scan is None or page is None:
        return Counter()
    policy = Policy.model_validate(scan.policy_body)
    candidates = [Candidate.from_json(candidate) for candidate in page.candidates]
    known = ledger.conversations.known([candidate.ref.key for candidate in candidates])
    try:
        given_up = page.attempts > MOST_ATTEMPTS
        with metered() as meter:
            judged = _given_up(candidates) if given_up else judge(service, candidates, known, policy)
    except Interrupted:
        ledger.scans.let_go(scan_id, owner=service.owner, number=number)
        service.outbox.page(scan_id, number)
        return Counter()
    settled = settle(service, scan, policy, judged, scan_id=scan.id, budget=policy.max_per_scan)
    reasons = Counter(one.decision.reason.value for one in settled)
    ledger.scans.finish_page(
        scan_id,
        number,
        owner=service.owner,
        reasons=reasons,
        now=service.now(),
        lease=service.scan_lease,
        requests=meter.take(),
    )
    scans.finish(service, scan_id)
    return reasons


def preview(service: Service, policy: Policy) -> Iterator[list[Judged]]:
    """Decide about everything on the server, page by page, and write nothing: what a scan would do now."""
    for page in scans.listing(service):
        candidates = [row for row in page if isinstance(row, Candidate)]
        known = service.ledger.conversations.known([candidate.ref.key for candidate in candidates])
        judged, left = screened(service, candidates, known, policy)
        yield judged + judge(service, left, known, policy)


def _given_up(candidates: Sequence[Candidate]) -> list[Judged]:
    skip = Skip(Reason.UNREADABLE, f"its page was begun {MOST_ATTEMPTS} times and never came to an end")
    return [(candidate, skip, skip) for candidate in candidates]
