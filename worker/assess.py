"""Measure a page of candidates, decide about each, and plan what is to be compacted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from worker import scan as scans
from worker.audit.conversations import Key, Known, Observation
from worker.audit.planning import OVER_BUDGET, PLANNED, Planning
from worker.audit.records import Scan
from worker.candidates import Candidate, observation, planned_order, sighting
from worker.handing import hand_out
from worker.letta.client import Letta
from worker.letta.errors import LettaError
from worker.loop import Interrupted, gather_bounded
from worker.measure import Ref, Unmeasurable, measure
from worker.policy.decide import Compact, Decision, Reason, Skip, decide, screen
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting, Snapshot
from worker.service import Service
from worker.throttle import Throttle

MOST_ATTEMPTS = 3
"""Claims of one page before it is given up: a page that kills its worker must not hold its schedule up for ever."""

Measured = Snapshot | Skip
"""A measured conversation, or why it could not be measured."""

Judged = tuple[Candidate, Measured, Decision]


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
        decided = _given_up(candidates) if given_up else judge(service, candidates, known, policy)
    except Interrupted:
        ledger.scans.let_go(scan_id, owner=service.owner, number=number)
        service.outbox.page(scan_id, number)
        return Counter()
    reasons = _write_down(service, scan, policy, decided)
    ledger.scans.finish_page(
        scan_id, number, owner=service.owner, reasons=reasons, now=service.now(), lease=service.scan_lease
    )
    scans.finish(service, scan_id)
    return reasons


def preview(service: Service, policy: Policy) -> Iterator[list[Judged]]:
    """Decide about everything on the server, page by page, and write nothing: what a scan would do now."""
    for page in scans.listing(service):
        candidates = [row for row in page if isinstance(row, Candidate)]
        known = service.ledger.conversations.known([candidate.ref.key for candidate in candidates])
        judged: list[Judged] = []
        left = []
        for candidate in candidates:
            skip = screen(sighting(candidate, known.get(candidate.ref.key)), policy, service.now())
            if skip is None:
                left.append(candidate)
            else:
                judged.append((candidate, skip, skip))
        yield judged + judge(service, left, known, policy)


def judge(service: Service, candidates: Sequence[Candidate], known: dict[Key, Known], policy: Policy) -> list[Judged]:
    """Measure candidates, as many at once as the settings allow, and decide about each. Writes nothing."""
    sightings = [sighting(candidate, known.get(candidate.ref.key)) for candidate in candidates]

    async def ask(letta: Letta) -> list[Measured]:
        asks: list[Callable[[], Awaitable[Measured]]] = [
            partial(_measure, letta, candidate.ref, seen) for candidate, seen in zip(candidates, sightings, strict=True)
        ]
        return await gather_bounded(asks, service.measuring)

    measured = service.loop.call(ask)
    now = service.now()
    return [
        (
            candidate,
            snapshot,
            snapshot if isinstance(snapshot, Skip) else decide(snapshot, policy, now, server=service.server),
        )
        for candidate, snapshot in zip(candidates, measured, strict=True)
    ]


def _given_up(candidates: Sequence[Candidate]) -> list[Judged]:
    skip = Skip(Reason.UNREADABLE, f"its page was begun {MOST_ATTEMPTS} times and never came to an end")
    return [(candidate, skip, skip) for candidate in candidates]


def _write_down(service: Service, scan: Scan, policy: Policy, judged: Sequence[Judged]) -> Counter[str]:
    """Put a page's decisions into the ledger; what is to be compacted is planned first and handed out then."""
    now, ledger = service.now(), service.ledger
    skipped: list[Observation] = []
    planned: list[str] = []
    breaker = ledger.throttles.open_handles(now, service.limits).get(policy.compaction.model or "")
    for candidate, measured, decision in judged:
        snapshot = measured if isinstance(measured, Snapshot) else None
        final: Decision = decision
        if isinstance(decision, Compact) and breaker is not None:
            final = Skip(Reason.BREAKER_OPEN, _broken(policy, breaker))
        elif isinstance(decision, Compact) and snapshot is not None:
            seen = observation(candidate, decision, scan.id, snapshot)
            planning = ledger.compactions.plan(
                planned_order(scan, decision, snapshot, seen, budget=policy.max_per_scan), now=now
            )
            if planning.outcome == PLANNED:
                planned.append(str(planning.compaction_id))
                continue
            final = _in_the_way(planning, policy)
        skipped.append(observation(candidate, final, scan.id, snapshot))
    ledger.conversations.record(skipped, now=now)
    hand_out(service, planned)
    return Counter(seen.reason for seen in skipped) + Counter({Reason.OVER_TRIGGER.value: len(planned)})


def _broken(policy: Policy, breaker: Throttle) -> str:
    model = policy.compaction.model or "the agents' own summarizer"
    return f"{model} failed {breaker.failures_in_row} times in a row; nothing is planned before {breaker.open_until}"


def _in_the_way(planning: Planning, policy: Policy) -> Skip:
    if planning.outcome == OVER_BUDGET:
        return Skip(Reason.MAX_PER_SCAN, f"this scan has planned its {policy.max_per_scan} compactions already")
    return Skip(Reason.IN_PROGRESS, f"compaction {planning.compaction_id} of it is still open")


async def _measure(letta: Letta, ref: Ref, seen: Sighting) -> Measured:
    """Measure one conversation; what goes wrong with it is its own affair."""
    try:
        return await measure(letta, ref, seen)
    except (LettaError, Unmeasurable) as error:
        return Skip(Reason.UNREADABLE, f"it could not be measured: {error}")
