"""The second look: hold a conversation against what stood in the row before its compaction, and close the row."""

from __future__ import annotations

import logging
from datetime import timedelta

from worker.audit.compactions import Closing
from worker.audit.records import Compaction
from worker.candidates import measurement
from worker.contract.compaction import CompactionResponse, CompactionSettings
from worker.letta.client import Letta
from worker.letta.errors import LettaError, NotFound
from worker.look import Look, arrivals, look_again
from worker.loop import Interrupted
from worker.measure import Ref, Unmeasurable
from worker.policy.proof import Flag, prove
from worker.policy.rules import Policy
from worker.service import Service
from worker.telemetry.story import tell

logger = logging.getLogger(__name__)

PROOF_PATIENCE = timedelta(hours=1)
"""How long a second look is tried again before the row is closed without it."""


def prove_and_close(service: Service, row: Compaction, *, recovered: CompactionResponse | None = None) -> str:
    """Look at a conversation after its compaction took effect, and close the row with what is seen.

    The row carries the server's answer, or recovered is what stands in for an answer that was lost. A look that fails,
    whatever the reason, leaves the row open, for PROOF_PATIENCE at the most; only a conversation that is gone does not.
    """
    ref = Ref(row.agent_id, row.conversation_id)
    response = recovered or CompactionResponse.model_validate_json(row.response or "")

    async def ask(letta: Letta) -> tuple[Look, list[str]]:
        return await look_again(letta, ref), await arrivals(letta, ref, row.newest_before)

    try:
        seen, arrived = service.loop.call(ask)
    except (LettaError, Unmeasurable, Interrupted) as error:
        interrupted = isinstance(error, Interrupted)
        if not isinstance(error, NotFound) and not _out_of_patience(service, row):
            again = service.now() + (timedelta() if interrupted else service.look_again_after)
            service.ledger.compactions.leave(row.id, f"not verified yet: {error}", owner=service.owner, look_at=again)
            return "left"
        problem = f"took effect, but could not be verified: {error}"
        closing = _unproven(response, problem, recovered=recovered is not None)
    else:
        closing = _proven(row, response, seen, arrived, recovered=recovered is not None)
    tell(service.ledger.compactions.succeed(row, closing, owner=service.owner, now=service.now()))
    if Flag.MESSAGES_DROPPED in closing.flags:
        logger.error("%s of %s dropped messages from the context: %s", row.id, row.conversation_id, closing.ids_dropped)
    return "recovered" if recovered is not None else "compacted"


def _out_of_patience(service: Service, row: Compaction) -> bool:
    return row.posted_at is not None and service.now() - row.posted_at > PROOF_PATIENCE


def _proven(
    row: Compaction, response: CompactionResponse, seen: Look, arrived: list[str], *, recovered: bool
) -> Closing:
    policy = Policy.model_validate(row.policy_body)
    settings = CompactionSettings.model_validate(row.settings)
    before = row.ids_before or []
    proof = prove(
        before=before,
        after=seen.ids,
        arrived=[id_ for id_ in arrived if id_ not in before],
        asked_to_wipe=settings.mode is not None and not settings.mode.slides,
        usage_after=seen.snapshot.usage,
        target_usage=policy.target_usage,
    )
    return Closing(
        measured=measurement(seen.snapshot),
        num_messages_before=response.num_messages_before,
        num_messages_after=response.num_messages_after,
        summary=response.summary,
        mode_used=proof.mode_used,
        flags=proof.flags,
        ids_after=seen.ids,
        ids_kept=proof.ids_kept,
        ids_lost=proof.ids_lost,
        ids_dropped=proof.ids_dropped,
        recovered=recovered,
    )


def _unproven(response: CompactionResponse, error: str, *, recovered: bool) -> Closing:
    return Closing(
        measured=None,
        num_messages_before=response.num_messages_before,
        num_messages_after=response.num_messages_after,
        summary=response.summary,
        mode_used=None,
        flags=(),
        ids_after=None,
        ids_kept=None,
        ids_lost=None,
        ids_dropped=None,
        error=error,
        recovered=recovered,
    )
