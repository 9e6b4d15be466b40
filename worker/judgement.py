"""What is found about conversations: measured, decided about, and, where they are to be compacted, planned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from worker.audit.conversations import Key, Known
from worker.audit.planning import OVER_BUDGET, PLANNED, Planning
from worker.audit.records import Scan
from worker.audit.scans import ScanOrder
from worker.candidates import Candidate, observation, planned_order, sighting
from worker.handing import hand_out
from worker.letta.client import Letta
from worker.letta.errors import LettaError
from worker.loop import gather_bounded
from worker.measure import Ref, Unmeasurable, measure
from worker.policy.decide import Compact, Decision, Reason, Skip, decide, screen
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting, Snapshot
from worker.service import Service
from worker.telemetry.tracing import continued
from worker.throttle import Throttle

Measured = Snapshot | Skip
"""A measured conversation, or why it could not be measured."""

Judged = tuple[Candidate, Measured, Decision]

Gauge = Callable[[Letta, Ref, Sighting], Awaitable[Measured]]
"""How a conversation is measured; what goes wrong with it is its own affair, and comes back as a Skip."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one conversation. compaction_id: the one that was planned, or that stood in the way."""

    candidate: Candidate
    decision: Decision
    measured: Snapshot | None
    compaction_id: str | None = None


async def plain(letta: Letta, ref: Ref, seen: Sighting) -> Measured:
    """Measure a conversation, and nothing more: what a scan can afford for each of thousands."""
    try:
        return await measure(letta, ref, seen)
    except (LettaError, Unmeasurable) as error:
        return Skip(Reason.UNREADABLE, f"it could not be measured: {error}")


def screened(
    service: Service,
    candidates: Sequence[Candidate],
    known: dict[Key, Known],
    policy: Policy,
    *,
    copies: Collection[str] = (),
) -> tuple[list[Judged], list[Candidate]]:
    """Part those that can be left alone without asking the server from those that have to be measured.

    copies: ids of conversations that are safety copies of ours.
    """
    judged: list[Judged] = []
    left = []
    for candidate in candidates:
        is_copy = candidate.ref.conversation_id in copies
        seen = sighting(candidate, known.get(candidate.ref.key), is_safety_copy=is_copy)
        skip = screen(seen, policy, service.now())
        if skip is None:
            left.append(candidate)
        else:
            judged.append((candidate, skip, skip))
    return judged, left


def judge(
    service: Service,
    candidates: Sequence[Candidate],
    known: dict[Key, Known],
    policy: Policy,
    *,
    gauge: Gauge = plain,
) -> list[Judged]:
    """Measure candidates, as many at once as the settings allow, and decide about each. Writes nothing."""
    sightings = [sighting(candidate, known.get(candidate.ref.key)) for candidate in candidates]

    async def ask(letta: Letta) -> list[Measured]:
        asks: list[Callable[[], Awaitable[Measured]]] = [
            partial(gauge, letta, candidate.ref, seen) for candidate, seen in zip(candidates, sightings, strict=True)
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


def settle(
    service: Service,
    rules: Scan | ScanOrder,
    policy: Policy,
    judged: Sequence[Judged],
    *,
    scan_id: str | None = None,
    budget: int | None = None,
    traces: Mapping[Key, str | None] | None = None,
) -> list[Settled]:
    """Put decisions into the ledger; what is to be compacted is planned first and handed out then.

    scan_id: the scan they belong to; budget: the most compactions that it may plan;
    traces: those that conversations were brought up in, where that is not what is under way.
    """
    now, ledger = service.now(), service.ledger
    breaker = open_breaker(service, policy)
    done: list[Settled] = []
    planned: list[str] = []
    for candidate, measured, decision in judged:
        snapshot = measured if isinstance(measured, Snapshot) else None
        settled = Settled(candidate, decision, snapshot)
        if isinstance(decision, Compact) and breaker is not None:
            settled = Settled(candidate, Skip(Reason.BREAKER_OPEN, _broken(policy, breaker)), snapshot)
        elif isinstance(decision, Compact) and snapshot is not None:
            seen = observation(candidate, decision, scan_id, snapshot)
            with continued((traces or {}).get(candidate.ref.key), "plan"):
                order = planned_order(rules, decision, snapshot, seen, budget=budget)
                planning = ledger.compactions.plan(order, now=now)
            final: Decision = decision
            if planning.outcome == PLANNED:
                planned.append(str(planning.compaction_id))
            else:
                final = _in_the_way(planning, policy)
            settled = Settled(candidate, final, snapshot, planning.compaction_id)
        done.append(settled)
    skipped = [one for one in done if not isinstance(one.decision, Compact)]
    ledger.conversations.record(
        [observation(one.candidate, one.decision, scan_id, one.measured) for one in skipped], now=now
    )
    hand_out(service, planned)
    return done


def open_breaker(service: Service, policy: Policy) -> Throttle | None:
    """Give the breaker of the policy's summarizer model while it is open."""
    return service.ledger.throttles.open_handles(service.now(), service.limits).get(policy.compaction.model or "")


def _broken(policy: Policy, breaker: Throttle) -> str:
    model = policy.compaction.model or "the agents' own summarizer"
    return f"{model} failed {breaker.failures_in_row} times in a row; nothing is planned before {breaker.open_until}"


def _in_the_way(planning: Planning, policy: Policy) -> Skip:
    if planning.outcome == OVER_BUDGET:
        return Skip(Reason.MAX_PER_SCAN, f"this scan has planned its {policy.max_per_scan} compactions already")
    return Skip(Reason.IN_PROGRESS, f"compaction {planning.compaction_id} of it is still open")
