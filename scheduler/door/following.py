"""What the door shows of an event or a compaction to whoever holds a key: its state and outcome, never a summary."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from scheduler.door.ids import EVENT
from worker.audit.events import Event
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction, EventState, State
from worker.discretion import discreet

Told = Annotated[str, AfterValidator(discreet)]
"""A sentence, without what the Letta server answered: that may repeat what it was sent."""


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class CompactionShown(_Shown):
    """A compaction. usage: tokens in context over the window, 0..1; outcome: how it ended, in one word."""

    kind: Literal["compaction"] = "compaction"
    id: str
    state: State
    outcome: str | None
    agent_id: str
    conversation_id: str
    trigger: str
    policy: str
    reason: str
    sentence: Told
    usage_before: float | None
    usage_after: float | None
    tokens_before: int | None
    tokens_after: int | None
    num_messages_before: int | None
    num_messages_after: int | None
    flags: list[str]
    error: Told | None
    planned_at: datetime
    finished_at: datetime | None


class EventShown(_Shown):
    """An event: what was told, what became of it and why, and the compaction that it led to."""

    kind: Literal["event"] = "event"
    id: str
    state: EventState
    reason: str | None
    sentence: Told | None
    agent_id: str | None
    conversation_id: str | None
    policy: str | None
    usage: float | None
    received_at: datetime
    finished_at: datetime | None
    compaction_id: str | None
    compaction: CompactionShown | None = None


def follow(ledger: Ledger, followed_id: str) -> EventShown | CompactionShown | None:
    """Look an event or a compaction up by its id; None where there is none."""
    if not followed_id.startswith(EVENT):
        return _compaction(ledger.compactions.get(followed_id))
    event = ledger.events.get(followed_id)
    return None if event is None else _event(ledger, event)


def _event(ledger: Ledger, event: Event) -> EventShown:
    led_to = None if event.compaction_id is None else ledger.compactions.get(event.compaction_id)
    return EventShown.model_validate(event).model_copy(update={"compaction": _compaction(led_to)})


def _compaction(row: Compaction | None) -> CompactionShown | None:
    return None if row is None else CompactionShown.model_validate(row)
