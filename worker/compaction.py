"""The life of one compaction: claim, look, commit the intent, one POST, keep the answer, look again, close.

Each step is committed before the next one begins, so that a process killed at any instant leaves a row that tells how
far it came. No transaction is open while Letta is asked.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from worker import safety
from worker.audit.compactions import Intent, LostClaim
from worker.audit.records import Compaction
from worker.candidates import Candidate, measurement, sighting
from worker.contract.compaction import CompactionRequest, CompactionSettings
from worker.ending import close_failed, give_back, refuse
from worker.letta.client import CompactionReply, Letta
from worker.letta.errors import LettaError, LettaProtocolError, LettaStatusError, NotFound
from worker.logs.about import about
from worker.look import Look, look
from worker.loop import Interrupted
from worker.measure import Ref, Unmeasurable
from worker.policy.decide import Compact, Decision, decide
from worker.policy.rules import Policy
from worker.pushback import note_error, note_success, pass_on
from worker.service import Service
from worker.telemetry.telling import ANSWERED
from worker.telemetry.tracing import continued
from worker.verify import prove_and_close
from worker.vigil import POST_WITHIN

logger = logging.getLogger(__name__)

OPEN = ("released", "left")
"""The words of a run that has not closed its row."""


def run(service: Service, compaction_id: str) -> str:
    """Run a planned compaction. Gives the word that tells how it went: an outcome, or `not_due`, `released`, `left`.

    Raises LedgerUnavailable where the database is away; the row then tells the sweep where to go on.
    """
    with about(compaction_id=compaction_id), service.heart.over(compaction_id) as alone:
        row = _claim(service, compaction_id) if alone else None
        if row is None:
            return "not_due"
        ids = about(agent_id=row.agent_id, conversation_id=row.conversation_id, scan_id=row.scan_id)
        with ids, continued(row.trace, "compaction", compaction_id=row.id):
            outcome = _go(service, row)
    pass_on(service)
    return outcome


def _go(service: Service, row: Compaction) -> str:
    try:
        outcome = _Run(service, row).go()
    except LostClaim as error:
        logger.warning("%s", error)
        return "taken_over"
    if outcome in OPEN:
        logger.info("%s of %s is still open: %s", row.id, row.conversation_id, outcome)
    return outcome


def _claim(service: Service, compaction_id: str) -> Compaction | None:
    return service.ledger.compactions.claim(
        compaction_id, now=service.now(), owner=service.owner, lease=service.lease, limits=service.limits
    )


class _Run:
    """One claimed row on its way from the fresh look to its end."""

    def __init__(self, service: Service, row: Compaction) -> None:
        self._service = service
        self._row = row
        self._ref = Ref(row.agent_id, row.conversation_id)
        self._policy = Policy.model_validate(row.policy_body)

    def go(self) -> str:
        try:
            seen, decision = self._decide()
            copy = None
            if isinstance(decision, Compact) and self._policy.safety_copy:
                copy = safety.make(self._service, self._row, self._policy)
                # A fork takes its time; what is sent rests on a look that is fresh.
                seen, decision = self._decide()
        except NotFound as error:
            return refuse(self._service, self._row, "not_found", f"the conversation is gone: {error}")
        except Unmeasurable as error:
            return close_failed(self._service, self._row, "unmeasurable", str(error))
        except Interrupted as error:
            return give_back(self._service, self._row, str(error), at_once=True)
        except LettaError as error:
            return self._not_done(error)
        if not isinstance(decision, Compact):
            return refuse(self._service, self._row, decision.reason, decision.sentence)
        self._commit_intent(seen, decision, copy)
        return self._post(decision.settings)

    def _decide(self) -> tuple[Look, Decision]:
        service = self._service
        known = service.ledger.conversations.known([self._ref.key]).get(self._ref.key)
        candidate = Candidate(self._ref, None, activity_known=False, num_messages=None)
        # Its own row is the open one; what else the ledger holds against the conversation still counts.
        history = sighting(candidate, None if known is None else known.without_open())
        now, stale = service.now(), timedelta(seconds=service.settings.stale_run_after)
        seen = service.loop.call(lambda letta: look(letta, self._ref, history, now=now, stale_run_after=stale))
        decision = decide(seen.snapshot, self._policy, service.now(), server=service.server, asked=self._row.asked)
        return seen, decision

    def _commit_intent(self, seen: Look, decision: Compact, copy: str | None) -> None:
        intent = Intent(
            settings=decision.settings.body(),
            measured=measurement(seen.snapshot),
            usage_expected=decision.forecast.tokens / seen.snapshot.window,
            sentence=decision.sentence,
            ids_before=seen.ids,
            newest_before=seen.snapshot.newest_at,
            safety_copy_id=copy,
        )
        service = self._service
        service.ledger.compactions.intend(
            self._row.id, intent, owner=service.owner, now=service.now(), lease=service.lease
        )

    def _post(self, settings: CompactionSettings) -> str:
        request = CompactionRequest(compaction_settings=settings)
        if self._ref.agent_in_request is not None:
            request = request.model_copy(update={"agent_id": self._ref.agent_in_request})
        intended_at = time.monotonic()

        async def send(letta: Letta) -> CompactionReply | None:
            if time.monotonic() - intended_at > POST_WITHIN:
                return None
            return await letta.compact(self._ref.conversation_id, request)

        try:
            reply = self._service.loop.call(send)
        except Interrupted as error:
            return self._leave(f"its worker was shut down during the POST: {error}", timedelta())
        except LettaError as error:
            note_error(self._service, self._row.model, error)
            return self._no_answer(error)
        if reply is None:
            return give_back(self._service, self._row, "its worker stood still between the intent and the POST")
        service = self._service
        service.ledger.compactions.keep_answer(
            self._row.id, reply.body, owner=service.owner, now=service.now(), lease=service.lease
        )
        note_success(service, self._row.model)
        answered = service.ledger.compactions.get(self._row.id)
        if answered is None:
            raise LostClaim(f"compaction {self._row.id} is gone from the ledger")
        return prove_and_close(service, answered)

    def _no_answer(self, error: LettaError) -> str:
        """Sort out a POST that brought no response: refused, surely without effect, or unknown."""
        if isinstance(error, LettaStatusError) and error.nothing_to_compact:
            return refuse(self._service, self._row, "nothing_to_compact", str(error), put_off=True)
        if isinstance(error, NotFound):
            return refuse(self._service, self._row, "not_found", f"the conversation is gone: {error}")
        if error.outcome_known:
            return self._not_done(error)
        said = f"{ANSWERED}{error.body[:300]}" if isinstance(error, LettaProtocolError) and error.body else ""
        why = f"the answer was lost, its effect is to be looked for: {error}{said}"
        return self._leave(why, self._service.look_again_after)

    def _leave(self, error: str, look_after: timedelta) -> str:
        service = self._service
        look_at = service.now() + look_after
        service.ledger.compactions.leave(self._row.id, error, owner=service.owner, look_at=look_at)
        return "left"

    def _not_done(self, error: LettaError) -> str:
        """Deal with an error after which the conversation is surely as it was."""
        if error.retryable:
            return give_back(self._service, self._row, str(error), retry_after=error.retry_after)
        outcome = "error" if error.status is None else f"http_{error.status}"
        return close_failed(self._service, self._row, outcome, str(error))
