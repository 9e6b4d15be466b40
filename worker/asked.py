"""A compaction that somebody asks for: measured now, decided without the trigger, planned like any other."""

from __future__ import annotations

from dataclasses import dataclass

from worker import scan as scans
from worker.address import Misaddressed, whose
from worker.audit.planning import PLANNED
from worker.candidates import Candidate, observation, planned_order, sighting
from worker.handing import hand_out
from worker.letta.client import Letta
from worker.letta.errors import LettaError
from worker.measure import Ref, Unmeasurable, in_context_ids, measure
from worker.policy.decide import Compact, decide
from worker.policy.rules import Policy
from worker.policy.snapshot import Snapshot
from worker.service import Service


class CannotAsk(Exception):
    """The conversation cannot be looked at; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the wish: the planned compaction's id, or why there is none."""

    compaction_id: str | None
    sentence: str
    snapshot: Snapshot


def resolve(service: Service, conversation_id: str, agent_id: str | None) -> Ref:
    """Find out whose conversation it is. Raises CannotAsk with what to do."""
    try:
        return service.loop.call(lambda letta: whose(letta, conversation_id, agent_id))
    except (LettaError, Misaddressed) as error:
        raise CannotAsk(str(error)) from None


def ask(service: Service, ref: Ref, *, policy_name: str, trigger: str) -> Answer:
    """Measure a conversation and plan its compaction; what protects a conversation in use holds here too.

    Raises CannotAsk, and UnknownName for a policy that the file does not have.
    """
    order = scans.order(service, trigger=trigger, policy=policy_name)
    known = service.ledger.conversations.known([ref.key]).get(ref.key)

    async def look(letta: Letta) -> tuple[Candidate, Snapshot]:
        ids, last = await in_context_ids(letta, ref)
        candidate = Candidate(ref, last, activity_known=last is not None, num_messages=len(ids))
        return candidate, await measure(letta, ref, sighting(candidate, known))

    try:
        candidate, snapshot = service.loop.call(look)
    except (LettaError, Unmeasurable) as error:
        raise CannotAsk(str(error)) from None
    policy = Policy.model_validate(order.policy_body)
    decision = decide(snapshot, policy, service.now(), server=service.server, asked=True)
    seen = observation(candidate, decision, None, snapshot)
    if not isinstance(decision, Compact):
        service.ledger.conversations.record([seen], now=service.now())
        return Answer(None, decision.sentence, snapshot)
    wanted = planned_order(order, decision, snapshot, seen, asked=True)
    planning = service.ledger.compactions.plan(wanted, now=service.now())
    if planning.outcome != PLANNED or planning.compaction_id is None:
        return Answer(None, f"compaction {planning.compaction_id} of it is still open", snapshot)
    hand_out(service, [planning.compaction_id])
    return Answer(planning.compaction_id, decision.sentence, snapshot)
