"""The service's own webhooks: what was done is told to others, signed, again and again until they took it.

At least once: a process that dies between an answer and its note in the ledger leaves the delivery to be sent again,
under the same `webhook-id`, by which a receiver knows it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta

from worker.audit.announcer import HEARTBEAT
from worker.audit.compactions import LostClaim
from worker.audit.deliveries import Delivery
from worker.logs.about import about
from worker.loop import Interrupted
from worker.policy.delays import before_redelivery
from worker.service import Service
from worker.settings import Settings
from worker.webhooks.courier import AT_ONE_ENDPOINT, TIMEOUT, Answer, carry, shown

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Deliveries claimed together."""

LEASE = timedelta(seconds=AT_ONCE / AT_ONE_ENDPOINT * TIMEOUT + 50)
"""How long a claim holds: longer than the slowest endpoint can take with all that was claimed."""

HEARTBEAT_TRIES = 3
"""Calls of a heartbeat's URL, within some five minutes."""

GONE = 410
"""The status by which an endpoint says that it wants no more."""


_ROUNDS = threading.BoundedSemaphore(4)
"""Rounds of one process: more than one, so that a slow endpoint holds up no other, and not all of its threads."""

_claiming = threading.Lock()
_visited: set[str] = set()
"""The endpoints of the rounds under way: the next one leaves them alone, else a slow one's backlog takes them all."""


def notify(service: Service) -> Counter[str]:
    """Send the deliveries that are due. Gives how many were delivered, failed for now, and dead.

    Does nothing where enough threads of this process are at it. Raises LedgerUnavailable; what was claimed by then is
    due again once its lease is over.
    """
    if not _ROUNDS.acquire(blocking=False):
        return Counter()
    try:
        return _round(service)
    finally:
        _ROUNDS.release()


def _round(service: Service) -> Counter[str]:
    settings = service.settings
    if settings.notify_secret is None and settings.heartbeat_url is None:
        return Counter()
    with _claiming:
        rows = service.ledger.deliveries.claim_due(
            now=service.now(), owner=service.owner, lease=LEASE, limit=AT_ONCE, apart_from=_visited
        )
        left = Counter(one.endpoint for one in rows)
        _visited.update(left)
    try:
        return _send(service, {one.id: one for one in rows}, left)
    finally:
        _leave(list(left))


def _leave(endpoints: Iterable[str]) -> None:
    with _claiming:
        _visited.difference_update(endpoints)


def _send(service: Service, claimed: Mapping[str, Delivery], left: Counter[str]) -> Counter[str]:
    """Send what was claimed. left: how many each endpoint has still to get; one that is done with is taken out."""
    ends: Counter[str] = Counter()
    settings = service.settings
    wanted = [one for one in claimed.values() if _is_wanted(one, settings)]
    for one in claimed.values():
        if one not in wanted:
            unwanted = Answer(one.id, None, "the settings do not have its endpoint any more")
            ends[_note(service, one, unwanted, last=True)] += 1
    if not wanted:
        return ends
    secret = None if settings.notify_secret is None else settings.notify_secret.get_secret_value()
    failures: dict[str, list[str]] = {}
    with suppress(Interrupted):
        for answer in service.loop.walk(lambda _: carry(wanted, secret, service.now)):
            delivery = claimed[answer.parcel_id]
            with about(delivery_id=delivery.id):
                ends[_note(service, delivery, answer, last=answer.status == GONE)] += 1
            left[delivery.endpoint] -= 1
            if left[delivery.endpoint] == 0:
                del left[delivery.endpoint]
                _leave([delivery.endpoint])
            if answer.error is not None:
                failures.setdefault(shown(delivery.endpoint), []).append(answer.error)
    for endpoint, errors in failures.items():
        logger.warning("%s did not take %d webhooks, the last one: %s", endpoint, len(errors), errors[-1])
    return ends


def _is_wanted(delivery: Delivery, settings: Settings) -> bool:
    """Tell whether a delivery still has somewhere to go by the settings as they are now."""
    if delivery.type == HEARTBEAT:
        return settings.heartbeat_url is not None
    return settings.notify_secret is not None and delivery.endpoint in settings.notify_urls


def _note(service: Service, delivery: Delivery, answer: Answer, *, last: bool) -> str:
    """Write down how one attempt went, and when the next one is due."""
    deliveries, now = service.ledger.deliveries, service.now()
    # A sign of life that comes late says what is not true any more.
    over = last or (delivery.type == HEARTBEAT and delivery.attempts >= HEARTBEAT_TRIES)
    wait = None if over else before_redelivery(delivery.attempts, random.random())  # noqa: S311 - only jitter
    try:
        if answer.error is None:
            deliveries.delivered(delivery.id, owner=service.owner, status=answer.status or 0, now=now)
            return "delivered"
        deliveries.failed(
            delivery.id,
            owner=service.owner,
            status=answer.status,
            error=answer.error,
            next_at=None if wait is None else now + max(wait, timedelta(seconds=answer.retry_after or 0)),
            now=now,
        )
    except LostClaim as error:
        logger.warning("%s", error)
        return "taken_over"
    if wait is not None:
        return "failed"
    where, what = shown(delivery.endpoint), f"{delivery.type} of {delivery.subject_id}"
    logger.error("%s (%s) is dead: %s did not take it: %s", delivery.id, what, where, answer.error)
    return "dead"
