"""What webhooks told of: find out which conversation it is about, and have that watched until it falls idle."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from worker import scan
from worker.address import Misaddressed, whose
from worker.audit.compactions import LostClaim
from worker.audit.database import LedgerError
from worker.audit.events import Event, Source
from worker.audit.scans import ScanOrder
from worker.discretion import named
from worker.letta.client import DEFAULT, Letta, usable
from worker.letta.errors import LettaError, NotFound, UnusableArgument
from worker.logs.about import about
from worker.loop import Interrupted, gather_bounded
from worker.measure import Ref
from worker.policy.decide import Reason
from worker.policy.delays import before_retry
from worker.policy.rules import Policy
from worker.policy.watch import TRIGGER, is_far_below
from worker.service import Service
from worker.telemetry.tracing import continued
from worker.webhooks.steps import Places

logger = logging.getLogger(__name__)

AT_ONCE = 20
"""Events claimed together: few enough to be done with long before their lease runs out."""

WATCHED, RELEASED = "watched", "released"

MOST_ATTEMPTS = 12
"""Claims of one event before it is closed as failed: about an hour of a server that is away."""


@dataclass(frozen=True, slots=True)
class _Watch:
    """Conversations to watch under a policy from a time on, and the usage that the event itself tells."""

    refs: tuple[Ref, ...]
    policy: str
    due_at: datetime
    usage: float | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """The event is over: nothing to do, or nothing that can be done."""

    reason: str
    sentence: str
    usage: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Later:
    """The server could not be asked. retry_after: the seconds that it asks to wait."""

    sentence: str
    retry_after: float | None = None


_Finding = _Watch | _End | _Later
_Findings = list[tuple[Event, _Finding]]


def handle(service: Service, event_ids: Sequence[str]) -> Counter[str]:
    """Look into events that were received. Gives how many came to which end: `watched`, `released`, or a reason.

    Raises LedgerUnavailable; what was claimed by then is found by the sweep once its lease is over.
    """
    ends: Counter[str] = Counter()
    ledger = service.ledger
    for start in range(0, len(event_ids), AT_ONCE):
        chunk, rest = event_ids[start : start + AT_ONCE], event_ids[start + AT_ONCE :]
        claimed = ledger.events.claim(chunk, now=service.now(), owner=service.owner, lease=service.scan_lease)
        try:
            findings = _find_out(service, claimed)
        except Interrupted as error:
            _let_go(service, claimed, str(error))
            if rest:
                ledger.events.not_enqueued(rest)
            return ends
        refs = [ref for _, finding in findings if isinstance(finding, _Watch) for ref in finding.refs]
        copies = ledger.safety_copies.among([ref.conversation_id for ref in refs])
        for event, finding in findings:
            with _of(event, "event"):
                try:
                    ends[_settled(service, event, finding, copies)] += 1
                except LostClaim as error:
                    logger.warning("%s", error)
    return ends


def _find_out(service: Service, events: Sequence[Event]) -> _Findings:
    """Ask the server about events, as many at once as the settings allow. Raises Interrupted."""
    done: _Findings = []
    to_ask: list[tuple[Event, ScanOrder]] = []
    default = service.policies.book().webhook.policy
    for event in events:
        try:
            rules = scan.order(service, trigger=TRIGGER, policy=event.policy or default)
        except scan.UnknownName as error:
            done.append((event, _End("unknown_policy", str(error), failed=True)))
            continue
        if event.attempts > MOST_ATTEMPTS:
            sentence = f"it was begun {MOST_ATTEMPTS} times and never came to an end"
            done.append((event, _End("given_up", sentence, failed=True)))
        else:
            to_ask.append((event, rules))
    now = service.now()

    async def ask(letta: Letta) -> list[_Finding]:
        places = Places(letta)
        asks: list[Callable[[], Awaitable[_Finding]]] = [
            partial(_ask, letta, places, event, rules, now) for event, rules in to_ask
        ]
        return await gather_bounded(asks, service.measuring)

    findings = service.loop.call(ask) if to_ask else []
    return done + [(event, finding) for (event, _), finding in zip(to_ask, findings, strict=True)]


@contextmanager
def _of(event: Event, what: str) -> Iterator[None]:
    """Do something for an event: lines are about it, spans are of its trace."""
    ids = about(event_id=event.id, agent_id=event.agent_id, conversation_id=event.conversation_id)
    with ids, continued(event.trace, what, event_id=event.id):
        yield


async def _ask(letta: Letta, places: Places, event: Event, rules: ScanOrder, now: datetime) -> _Finding:
    """Find out about one event; what goes wrong with it is its own affair."""
    with _of(event, "look"):
        return await _asked(letta, places, event, rules, now)


async def _asked(letta: Letta, places: Places, event: Event, rules: ScanOrder, now: datetime) -> _Finding:
    try:
        if event.source == Source.SIGNED:
            ref = await whose(letta, event.conversation_id or DEFAULT, event.agent_id)
            return _Watch(_usable(ref), rules.policy, now)
        return await _step(letta, places, event, rules)
    except NotFound as error:
        what = event.key if event.source == Source.LETTA else event.conversation_id or event.agent_id
        return _End("not_found", f"the server has no {what}, or not what belongs to it: {error}", failed=True)
    except (Misaddressed, UnusableArgument) as error:
        return _End("misaddressed", str(error), failed=True)
    except LettaError as error:
        return _Later(str(error), error.retry_after)
    except Exception as error:
        # An event that trips over a fault of ours must not keep the others of its message from their end.
        logger.exception("%s could not be looked into", event.id)
        return _fault(error)


def _fault(error: Exception) -> _Later:
    return _Later(f"a fault of the service itself: {named(error)}")


def _usable(*refs: Ref) -> tuple[Ref, ...]:
    """Pass conversations on whose ids are ids: what the server calls them goes into the ledger. UnusableArgument."""
    for ref in refs:
        usable(ref.agent_id)
        usable(ref.conversation_id)
    return refs


async def _step(letta: Letta, places: Places, event: Event, rules: ScanOrder) -> _Finding:
    step = await letta.retrieve_step(event.key)
    policy = Policy.model_validate(rules.policy_body)
    if step.usage is not None and is_far_below(step.usage, policy):
        sentence = f"usage {step.usage:.2f} is far below the trigger of {policy.trigger_usage:.2f}"
        return _End(Reason.BELOW_TRIGGER, sentence, step.usage)
    refs = _usable(*await places.of(step, event.received_at))
    return _Watch(refs, rules.policy, event.received_at + policy.idle_for, step.usage)


def _settled(service: Service, event: Event, finding: _Finding, copies: set[str]) -> str:
    """Commit what was found out about one event; one that trips over a fault of ours takes no other with it."""
    try:
        return _write_down(service, event, finding, copies)
    except (LostClaim, LedgerError):
        raise
    except Exception as error:
        logger.exception("what was found out about %s could not be kept", event.id)
        return _put_back(service, event, _fault(error))


def _write_down(service: Service, event: Event, finding: _Finding, copies: set[str]) -> str:
    """Commit what was found out about one event."""
    now, events = service.now(), service.ledger.events
    match finding:
        case _Later():
            return _put_back(service, event, finding)
        case _Watch():
            refs = [ref.key for ref in finding.refs if ref.conversation_id not in copies]
            if refs:
                service.ledger.watches.watch(
                    event,
                    refs,
                    policy=finding.policy,
                    usage=finding.usage,
                    due_at=finding.due_at,
                    owner=service.owner,
                    now=now,
                )
                return WATCHED
            end = _End(Reason.SAFETY_COPY, "it is a safety copy that was made before a compaction", finding.usage)
        case _End():
            end = finding
    if end.failed:
        events.fail(event.id, owner=service.owner, reason=end.reason, sentence=end.sentence, now=now)
        logger.warning("%s (%s) failed: %s: %s", event.id, event.key, end.reason, end.sentence)
    else:
        events.close(event.id, owner=service.owner, reason=end.reason, sentence=end.sentence, usage=end.usage, now=now)
    return end.reason


def _put_back(service: Service, event: Event, later: _Later) -> str:
    """Return an event for another attempt, or close it after the last one."""
    if event.attempts >= MOST_ATTEMPTS:
        sentence = f"{event.attempts} attempts, the last one: {later.sentence}"
        return _write_down(service, event, _End("retries_spent", sentence, failed=True), set())
    wait = before_retry(event.attempts, random.random())  # noqa: S311 - jitter is no secret
    _release(service, event, later.sentence, max(wait, timedelta(seconds=later.retry_after or 0)))
    return RELEASED


def _let_go(service: Service, events: Sequence[Event], why: str) -> None:
    """Give events back at the end of the process."""
    for event in events:
        try:
            _release(service, event, why, timedelta())
        except LostClaim as error:
            logger.warning("%s", error)


def _release(service: Service, event: Event, sentence: str, wait: timedelta) -> None:
    service.ledger.events.release(event.id, owner=service.owner, sentence=sentence, not_before=service.now() + wait)
