"""What an answer says about the server and the model behind it: room for more, too much, or broken."""

from __future__ import annotations

import logging

from worker.audit.throttles import FLEET
from worker.handing import hand_out
from worker.letta.errors import LettaError, LettaStatusError, RateLimited, ServerError
from worker.service import Service
from worker.throttle import Breaker

logger = logging.getLogger(__name__)

MODEL_TROUBLE = "llm_"
"""How a server's error kinds begin that concern its model's provider (0.16.8: `llm_rate_limit`, `llm_error` ...)."""

UNAVAILABLE = 503


def note_success(service: Service, model: str) -> None:
    """A compaction went through: room for a little more, and a closed breaker."""
    for handle in (FLEET, model):
        service.ledger.throttles.change(handle, service.limits, lambda throttle: throttle.succeeded())


def note_error(service: Service, model: str, error: LettaError) -> None:
    """A compaction brought an error: slow down at once where it asks for that, count it where something is broken.

    A 429 or a 503 of the Letta server concerns the whole fleet, one of its model's provider that model alone. What
    says nothing about either (a refusal, a 404) changes nothing.
    """
    now = service.now()
    about_model = isinstance(error, LettaStatusError) and (error.kind or "").startswith(MODEL_TROUBLE)
    if isinstance(error, RateLimited) or error.status == UNAVAILABLE:
        handle = model if about_model else FLEET
        changed = service.ledger.throttles.change(
            handle, service.limits, lambda throttle: throttle.pushed_back(now, error.retry_after)
        )
        logger.warning(
            "%s at most %d compactions at once, none before %s: %s",
            _named(handle),
            int(changed.limit),
            changed.paused_until,
            error,
        )
        return
    if not (about_model or isinstance(error, ServerError) or not error.outcome_known):
        return
    changed = service.ledger.throttles.change(model, service.limits, lambda throttle: throttle.failed(now))
    if changed.breaker(now) is Breaker.OPEN:
        logger.error(
            "%s failed %d times in a row and gets nothing before %s: %s",
            _named(model),
            changed.failures_in_row,
            changed.open_until,
            error,
        )


def pass_on(service: Service) -> None:
    """Hand out rows that wait for room, now that some may be there."""
    room = max(service.settings.concurrency // 8, 1)
    hand_out(service, service.ledger.open_rows.waiting(now=service.now(), limit=room))


def _named(handle: str) -> str:
    if handle == FLEET:
        return "the fleet"
    return f"the model {handle}" if handle else "the agents' own summarizer"
