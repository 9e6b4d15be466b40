"""The ledger's tables. What is in them is the truth; the broker only carries their ids."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from worker.audit.columns import DOCUMENT, ID, TRACE, metadata, partial_index, time
from worker.audit.eventtables import deliveries, events, watches
from worker.audit.totaltables import flagged, scan_totals, totals, webhook_answers

__all__ = [
    "compactions",
    "conversations",
    "deliveries",
    "events",
    "flagged",
    "metadata",
    "safety_copies",
    "scan_pages",
    "scan_totals",
    "scans",
    "throttles",
    "totals",
    "watches",
    "webhook_answers",
]

OPEN = "state IN ('planned', 'running')"
"""The states a compaction can still leave."""

FAILING = "failures_in_row > 0"


scans = Table(
    "scans",
    metadata,
    Column("id", ID, primary_key=True),
    Column("trigger", String(40), nullable=False),
    Column("schedule", String(80)),
    Column("policy", String(80), nullable=False),
    Column("policy_version", String(16), nullable=False),
    Column("policy_body", DOCUMENT, nullable=False),
    Column("state", String(20), nullable=False),
    Column("listing_done", Boolean, nullable=False, server_default=text("false")),
    Column("pages", Integer, nullable=False, server_default="0"),
    Column("listed", Integer, nullable=False, server_default="0"),
    Column("measured", Integer, nullable=False, server_default="0"),
    Column("requests", Integer, nullable=False, server_default="0"),
    Column("planned", Integer, nullable=False, server_default="0"),
    Column("reasons", DOCUMENT, nullable=False),
    Column("sentence", Text),
    time("started_at", nullable=False),
    time("finished_at"),
    Column("lease_owner", String(120)),
    time("lease_until"),
    Index("ix_scans_started_at", "started_at"),
    # The same schedule never scans twice at once, however many beats tick.
    partial_index("uq_scans_running_schedule", "schedule", where="state = 'running'", unique=True),
)

scan_pages = Table(
    "scan_pages",
    metadata,
    Column("scan_id", ID, ForeignKey("scans.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("candidates", DOCUMENT, nullable=False),
    Column("reasons", DOCUMENT, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_owner", String(120)),
    time("lease_until"),
    time("finished_at"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("agent_id", ID, primary_key=True),
    Column("conversation_id", ID, primary_key=True),
    time("first_seen_at", nullable=False),
    time("last_seen_at", nullable=False),
    time("last_message_at"),
    Column("window", Integer),
    Column("tokens", Integer),
    Column("usage", Float),
    Column("usage_source", String(40)),
    Column("num_messages", Integer),
    time("measured_at"),
    time("measured_activity"),
    Column("decision", String(20)),
    Column("reason", String(40)),
    Column("sentence", Text),
    time("decided_at"),
    Column("scan_id", ID),
    Column("last_compaction_id", ID),
    time("last_compacted_at"),
    Column("failures_in_row", Integer, nullable=False, server_default="0"),
    Column("refusals_in_row", Integer, nullable=False, server_default="0"),
    time("not_before"),
    # The view of the fullest first is read off these, however it is narrowed: no sort of every row.
    Index("ix_conversations_usage_conversation_id_agent_id", "usage", "conversation_id", "agent_id"),
    Index("ix_conversations_reason_usage_conversation_id_agent_id", "reason", "usage", "conversation_id", "agent_id"),
    Index("ix_conversations_not_before", "not_before"),
    partial_index("ix_conversations_failing", "failures_in_row", where=FAILING),
)

compactions = Table(
    "compactions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("agent_id", ID, nullable=False),
    Column("conversation_id", ID, nullable=False),
    Column("state", String(20), nullable=False),
    Column("trigger", String(40), nullable=False),
    Column("scan_id", ID, ForeignKey("scans.id")),
    Column("policy", String(80), nullable=False),
    Column("policy_version", String(16), nullable=False),
    Column("policy_body", DOCUMENT, nullable=False),
    Column("asked", Boolean, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("settings", DOCUMENT, nullable=False),
    Column("window", Integer),
    Column("usage_source", String(40)),
    Column("usage_before", Float),
    Column("usage_expected", Float),
    Column("usage_after", Float),
    Column("tokens_before", Integer),
    Column("tokens_after", Integer),
    Column("num_messages_before", Integer),
    Column("num_messages_after", Integer),
    Column("summary", Text),
    Column("mode_used", String(40)),
    Column("flags", DOCUMENT, nullable=False),
    Column("ids_before", DOCUMENT),
    Column("ids_after", DOCUMENT),
    Column("ids_kept", DOCUMENT),
    Column("ids_lost", DOCUMENT),
    Column("ids_dropped", DOCUMENT),
    time("newest_before"),
    Column("outcome", String(40)),
    Column("error", Text),
    Column("response", Text),
    Column("recovered", Boolean, nullable=False, server_default=text("false")),
    Column("attempts", Integer, nullable=False, server_default="0"),
    time("planned_at", nullable=False),
    time("enqueued_at"),
    time("not_before"),
    time("started_at"),
    time("posted_at"),
    time("finished_at"),
    Column("lease_owner", String(120)),
    time("lease_until"),
    Column("heartbeats", Integer, nullable=False, server_default="0"),
    Column("model", ID, nullable=False, server_default=""),
    Column("safety_copy_id", ID),
    Column("trace", TRACE),
    ForeignKeyConstraint(["agent_id", "conversation_id"], ["conversations.agent_id", "conversations.conversation_id"]),
    # The lock: one open compaction of a conversation, whoever asks for it.
    partial_index("uq_compactions_open", "agent_id", "conversation_id", where=OPEN, unique=True),
    Index("ix_compactions_conversation_id_planned_at", "conversation_id", "planned_at"),
    Index("ix_compactions_agent_id_planned_at", "agent_id", "planned_at"),
    Index("ix_compactions_planned_at", "planned_at"),
    Index("ix_compactions_state_planned_at", "state", "planned_at"),
    Index("ix_compactions_scan_id_planned_at", "scan_id", "planned_at"),
)

throttles = Table(
    "throttles",
    metadata,
    Column("handle", ID, primary_key=True),
    Column("limit", Float, nullable=False),
    time("paused_until"),
    Column("failures_in_row", Integer, nullable=False),
    Column("openings", Integer, nullable=False),
    time("open_until"),
)

safety_copies = Table(
    "safety_copies",
    metadata,
    Column("conversation_id", ID, primary_key=True),
    Column("agent_id", ID, nullable=False),
    Column("compaction_id", ID, ForeignKey("compactions.id"), nullable=False),
    time("made_at", nullable=False),
    time("keep_until", nullable=False),
    time("removed_at"),
    Index("ix_safety_copies_keep_until", "keep_until"),
)
