"""The ledger's rows as the service handles them: plain, frozen, typed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import Row


class State(StrEnum):
    """A compaction's life: planned, running, then one of three ends that never change again."""

    PLANNED = "planned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"


OPEN_STATES = (State.PLANNED, State.RUNNING)
CLOSED_STATES = (State.SUCCEEDED, State.REFUSED, State.FAILED)


class ScanState(StrEnum):
    """A scan's life. `skipped`: a tick that found its schedule's scan still running."""

    RUNNING = "running"
    FINISHED = "finished"
    SKIPPED = "skipped"
    FAILED = "failed"


class PageState(StrEnum):
    """A page of candidates waits to be measured, is being measured, or is done."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"


class EventState(StrEnum):
    """An event's life: received, then running, then watched (its conversation waits to fall idle), then one end."""

    RECEIVED = "received"
    RUNNING = "running"
    WATCHED = "watched"
    DONE = "done"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """An outgoing delivery is pending until its endpoint took it, or nobody tries any more."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Record:
    """A row as a plain object: a dataclass with a field for each column that it cares for."""

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Build the record from a row that has at least its columns."""
        mapping = row._mapping
        return cls(**{field.name: mapping[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Compaction(Record):
    """One decided compaction, open or closed: every column of its row."""

    id: str
    agent_id: str
    conversation_id: str
    state: str
    trigger: str
    scan_id: str | None
    policy: str
    policy_version: str
    policy_body: dict[str, Any]
    asked: bool
    reason: str
    sentence: str
    settings: dict[str, Any]
    window: int | None
    usage_source: str | None
    usage_before: float | None
    usage_expected: float | None
    usage_after: float | None
    tokens_before: int | None
    tokens_after: int | None
    num_messages_before: int | None
    num_messages_after: int | None
    summary: str | None
    mode_used: str | None
    flags: list[str]
    ids_before: list[str] | None
    ids_after: list[str] | None
    ids_kept: list[str] | None
    ids_lost: list[str] | None
    ids_dropped: list[str] | None
    newest_before: datetime | None
    outcome: str | None
    error: str | None
    response: str | None
    recovered: bool
    attempts: int
    planned_at: datetime
    enqueued_at: datetime | None
    not_before: datetime | None
    started_at: datetime | None
    posted_at: datetime | None
    finished_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None
    heartbeats: int
    model: str
    safety_copy_id: str | None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class HandedOut(Record):
    """What is worth telling of a compaction that goes to the broker. schedule: its scan's, where it has one."""

    id: str
    agent_id: str
    conversation_id: str
    trigger: str
    schedule: str | None
    usage_before: float | None
    usage_expected: float | None


@dataclass(frozen=True, slots=True)
class Scan(Record):
    """One run over the server's conversations. reasons: how many decisions fell for each reason.

    measured: how many of the listed could not be left out by the list alone, and were put down to be measured.
    requests: what was asked of the Letta server for it.
    """

    id: str
    trigger: str
    schedule: str | None
    policy: str
    policy_version: str
    policy_body: dict[str, Any]
    state: str
    listing_done: bool
    pages: int
    listed: int
    measured: int
    requests: int
    planned: int
    reasons: dict[str, int]
    sentence: str | None
    started_at: datetime
    finished_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class Conversation(Record):
    """What the ledger knows of one conversation: as last seen, as last measured, as last decided."""

    agent_id: str
    conversation_id: str
    first_seen_at: datetime
    last_seen_at: datetime
    last_message_at: datetime | None
    window: int | None
    tokens: int | None
    usage: float | None
    usage_source: str | None
    num_messages: int | None
    measured_at: datetime | None
    measured_activity: datetime | None
    decision: str | None
    reason: str | None
    sentence: str | None
    decided_at: datetime | None
    scan_id: str | None
    last_compaction_id: str | None
    last_compacted_at: datetime | None
    failures_in_row: int
    refusals_in_row: int
    not_before: datetime | None
