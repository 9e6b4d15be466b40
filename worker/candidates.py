"""What a scan looks at: the conversations that the server lists, and the agents' own, which it does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from worker.audit.conversations import Known, Measurement, Observation
from worker.audit.planning import Order
from worker.audit.records import Scan
from worker.audit.scans import ScanOrder
from worker.letta.client import DEFAULT, Letta
from worker.letta.models import Agent, Conversation, Unreadable
from worker.measure import Ref
from worker.policy.decide import Compact, Decision
from worker.policy.snapshot import Sighting, Snapshot
from worker.telemetry import tracing


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation that a list showed and that may need compacting."""

    ref: Ref
    last_message_at: datetime | None
    activity_known: bool
    num_messages: int | None

    def to_json(self) -> dict[str, Any]:
        """Give it as the ledger keeps it between listing and measuring."""
        return {
            "agent_id": self.ref.agent_id,
            "conversation_id": self.ref.conversation_id,
            "last_message_at": None if self.last_message_at is None else self.last_message_at.isoformat(),
            "activity_known": self.activity_known,
            "num_messages": self.num_messages,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read it back."""
        at = data["last_message_at"]
        return cls(
            Ref(data["agent_id"], data["conversation_id"]),
            None if at is None else datetime.fromisoformat(at),
            data["activity_known"],
            data["num_messages"],
        )


Batch = Sequence[Candidate | Unreadable]
"""One listed page; a row that could not be read stands in it as that."""


async def candidates_of(letta: Letta, *, page_size: int, default_conversations: bool) -> AsyncGenerator[Batch, None]:
    """Walk everything that a scan looks at: conversations, the latest first, then the agents' own."""
    async for conversations in letta.conversation_pages(limit=page_size, order_by="last_message_at", order="desc"):
        yield [row if isinstance(row, Unreadable) else _conversation(row) for row in conversations]
    if default_conversations:
        async for agents in letta.agent_pages(limit=page_size):
            yield [row if isinstance(row, Unreadable) else _own_conversation(row) for row in agents]


def sighting(candidate: Candidate, known: Known | None, *, is_safety_copy: bool = False) -> Sighting:
    """Put together what the list and the ledger tell of a conversation."""
    seen = Sighting(
        last_message_at=candidate.last_message_at,
        activity_known=candidate.activity_known,
        num_messages=candidate.num_messages,
        is_safety_copy=is_safety_copy,
    )
    if known is None:
        return seen
    row = known.conversation
    return replace(
        seen,
        open_compaction=known.open_compaction,
        last_compacted_at=row.last_compacted_at,
        not_before=row.not_before,
        settled_usage=row.usage,
        settled_at=row.measured_at,
        settled_activity=row.measured_activity,
    )


def measurement(snapshot: Snapshot) -> Measurement:
    """Put a snapshot's figures into the ledger's form."""
    return Measurement(
        window=snapshot.window,
        tokens=snapshot.tokens,
        num_messages=len(snapshot.messages),
        source=snapshot.source,
        activity=snapshot.sighting.last_message_at,
    )


def observation(
    candidate: Candidate, decision: Decision, scan_id: str | None, snapshot: Snapshot | None = None
) -> Observation:
    """Put what was seen of a conversation, and decided, into the ledger's form."""
    return Observation(
        agent_id=candidate.ref.agent_id,
        conversation_id=candidate.ref.conversation_id,
        last_message_at=candidate.last_message_at if snapshot is None else snapshot.sighting.last_message_at,
        decision="compact" if isinstance(decision, Compact) else "skip",
        reason=decision.reason,
        sentence=decision.sentence,
        scan_id=scan_id,
        measured=None if snapshot is None else measurement(snapshot),
    )


def planned_order(
    rules: Scan | ScanOrder,
    decision: Compact,
    snapshot: Snapshot,
    seen: Observation,
    *,
    asked: bool = False,
    budget: int | None = None,
) -> Order:
    """Put a decision to compact into the ledger's form, under the policy as it stood for it."""
    return Order(
        seen=seen,
        trigger=rules.trigger,
        policy=rules.policy,
        policy_version=rules.policy_version,
        policy_body=rules.policy_body,
        settings=decision.settings.body(),
        usage_expected=decision.forecast.tokens / snapshot.window,
        asked=asked,
        budget=budget,
        trace=tracing.here(),
    )


def _conversation(row: Conversation) -> Candidate:
    # A list leaves the ids empty where the server does not fill them: that says nothing about their number.
    count = len(row.in_context_message_ids) or None
    return Candidate(Ref(row.agent_id, row.id), row.last_message_at, row.knows_last_message, count)


def _own_conversation(row: Agent) -> Candidate:
    return Candidate(Ref(row.id, DEFAULT), None, activity_known=False, num_messages=len(row.message_ids))
