"""Conversations that events have drawn attention to: when one has fallen idle, measure, decide and plan."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import groupby

from worker import scan
from worker.audit.compactions import LostClaim
from worker.audit.conversations import Key, Known
from worker.audit.database import LedgerError
from worker.audit.records import State
from worker.audit.scans import ScanOrder
from worker.audit.watches import Watch
from worker.candidates import Candidate, sighting
from worker.discretion import named
from worker.judgement import Gauge, Measured, Settled, judge, open_breaker, screened, settle
from worker.letta.client import Letta
from worker.letta.errors import LettaError, NotFound
from worker.logs.about import about
from worker.look import look
from worker.loop import Interrupted
from worker.measure import Ref, Unmeasurable
from worker.policy.decide import Compact, Reason, Skip
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting
from worker.policy.watch import TRIGGER, held_until
from worker.service import Service

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Watches claimed together."""

BATCHES = 20
"""The most batches of one round: a long queue is worked off without waiting for the next one."""


_ROUNDS = threading.BoundedSemaphore(1)
"""One round a process: those that wait for a slow server must not take all of its threads, tick by tick."""


def attend(service: Service) -> Counter[str]:
    """Measure the watched conversations that are due, decide, and plan. Gives how many were left for each reason.

    Does nothing where another thread of this process is at it. Raises LedgerUnavailable; what was claimed by then is
    due again once its lease is over.
    """
    if not _ROUNDS.acquire(blocking=False):
        return Counter()
    try:
        return _round(service)
    finally:
        _ROUNDS.release()


def _round(service: Service) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for _ in range(BATCHES):
        due = service.ledger.watches.due(
            now=service.now(), owner=service.owner, lease=service.scan_lease, limit=AT_ONCE
        )
        waiting = sorted(due, key=lambda watch: watch.policy)
        groups = [list(group) for _, group in groupby(waiting, lambda watch: watch.policy)]
        for number, group in enumerate(groups):
            try:
                reasons += _attend(service, group)
            except Interrupted:
                _let_go(service, [watch for later in groups[number:] for watch in later])
                return reasons
        if len(due) < AT_ONCE:
            break
    return reasons


def _attend(service: Service, watches: Sequence[Watch]) -> Counter[str]:
    """Deal with watches of one policy; one that trips over a fault of ours holds up none of the others."""
    ends: Counter[str] = Counter()
    try:
        order = scan.order(service, trigger=TRIGGER, policy=watches[0].policy)
    except scan.UnknownName as error:
        for watch in watches:
            with _of(watch):
                ends[_close(service, watch, "unknown_policy", str(error))] += 1
        return ends
    try:
        return _look_at(service, order, watches)
    except (Interrupted, LedgerError):
        raise
    except Exception as error:
        if len(watches) > 1:
            return sum((_attend(service, [watch]) for watch in watches), Counter[str]())
        [watch] = watches
        logger.exception("%s could not be decided about", watch.conversation_id)
        fault = Skip(Reason.UNREADABLE, f"a fault of the service itself: {named(error)}")
        policy = Policy.model_validate(order.policy_body)
        with _of(watch):
            ends[_end(service, watch, Settled(_unseen(watch), fault, None), policy, None)] += 1
        return ends


def _look_at(service: Service, order: ScanOrder, watches: Sequence[Watch]) -> Counter[str]:
    """Screen by what the ledger holds, look at the rest as closely as a compaction does, decide, plan, write down."""
    policy = Policy.model_validate(order.policy_body)
    candidates = [_unseen(watch) for watch in watches]
    known = service.ledger.conversations.known([candidate.ref.key for candidate in candidates])
    copies = service.ledger.safety_copies.among([watch.conversation_id for watch in watches])
    left_alone, to_measure = screened(service, candidates, known, policy, copies=copies)
    judged = left_alone + judge(service, to_measure, known, policy, gauge=_gauge(service))
    traces = {_key(watch): watch.trace for watch in watches}
    settled = {one.candidate.ref.key: one for one in settle(service, order, policy, judged, traces=traces)}
    ends: Counter[str] = Counter()
    for watch in watches:
        with _of(watch):
            ends[_end(service, watch, settled[_key(watch)], policy, known.get(_key(watch)))] += 1
    return ends


@contextmanager
def _of(watch: Watch) -> Iterator[None]:
    """Deal with one watch: lines are about it, and one that is another's by now is left to it."""
    with about(agent_id=watch.agent_id, conversation_id=watch.conversation_id):
        try:
            yield
        except LostClaim as error:
            logger.warning("%s", error)


def _end(service: Service, watch: Watch, settled: Settled, policy: Policy, known: Known | None) -> str:
    """Close a watch with what was decided, or put it off until what holds its conversation back can be over."""
    decision = settled.decision
    if isinstance(decision, Compact):
        return _close(service, watch, decision.reason, decision.sentence, settled.compaction_id)
    answered_by = _compacted_since(service, watch, known) if decision.reason is Reason.COOLDOWN else None
    if answered_by is not None:
        return _close(service, watch, decision.reason, decision.sentence, answered_by)
    breaker = open_breaker(service, policy) if decision.reason is Reason.BREAKER_OPEN else None
    seen = sighting(settled.candidate, known)
    if settled.measured is not None:
        seen = replace(seen, last_message_at=settled.measured.sighting.last_message_at)
    until = held_until(
        decision,
        seen,
        policy,
        service.now(),
        looks=watch.attempts if watch.reason == decision.reason else 0,
        breaker_until=None if breaker is None else breaker.open_until,
    )
    if until is None:
        in_the_way = settled.compaction_id or (None if known is None else known.open_compaction)
        return _close(service, watch, decision.reason, decision.sentence, in_the_way)
    service.ledger.watches.put_off(
        watch, owner=service.owner, due_at=until, reason=decision.reason, sentence=decision.sentence
    )
    return decision.reason.value


def _compacted_since(service: Service, watch: Watch, known: Known | None) -> str | None:
    """Give the compaction that answered the watch's events already: a worker that died had planned it, or a scan."""
    if known is None or known.conversation.last_compaction_id is None:
        return None
    last = service.ledger.compactions.get(known.conversation.last_compaction_id)
    has_answered = last is not None and last.state == State.SUCCEEDED and last.planned_at > watch.last_event_at
    return last.id if last is not None and has_answered else None


def _close(service: Service, watch: Watch, reason: str, sentence: str, compaction_id: str | None = None) -> str:
    service.ledger.watches.close(
        watch, owner=service.owner, reason=reason, sentence=sentence, compaction_id=compaction_id, now=service.now()
    )
    return str(reason)


def _let_go(service: Service, watches: Sequence[Watch]) -> None:
    """Give watches back at the end of the process: they are due as before."""
    for watch in watches:
        with _of(watch):
            service.ledger.watches.put_off(
                watch,
                owner=service.owner,
                due_at=watch.due_at,
                reason=watch.reason,
                sentence=watch.sentence,
            )


def _gauge(service: Service) -> Gauge:
    """Measure as a compaction's own look does, runs included: a run that is under way is found before planning."""
    now, stale = service.now(), timedelta(seconds=service.settings.stale_run_after)

    async def gauge(letta: Letta, ref: Ref, seen: Sighting) -> Measured:
        try:
            return (await look(letta, ref, seen, now=now, stale_run_after=stale)).snapshot
        except NotFound as error:
            return Skip(Reason.NOT_FOUND, f"it is gone: {error}")
        except (LettaError, Unmeasurable) as error:
            return Skip(Reason.UNREADABLE, f"it could not be measured: {error}")

    return gauge


def _unseen(watch: Watch) -> Candidate:
    """Stand for a conversation that no list has shown."""
    return Candidate(Ref(watch.agent_id, watch.conversation_id), None, activity_known=False, num_messages=None)


def _key(watch: Watch) -> Key:
    return watch.agent_id, watch.conversation_id
