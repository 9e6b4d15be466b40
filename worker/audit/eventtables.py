"""The tables of what happens outside: events that came in, conversations watched for them, deliveries to others.

A query that is to use a partial index over a state has to name it in the index's own words: SQLite compares them.
Where a time is set in one state alone (a lease while an event runs, its end once it is closed, the next attempt while
a delivery is pending), the index and its queries go by the time.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, String, Table, Text

from worker.audit.columns import ID, TRACE, metadata, partial_index, time

RECEIVED = "state = 'received'"
WATCHED = "state = 'watched'"

events = Table(
    "events",
    metadata,
    Column("id", ID, primary_key=True),
    Column("source", String(20), nullable=False),
    # Room for a step's id with the ids of an agent and a conversation.
    Column("key", String(440), nullable=False),
    Column("state", String(20), nullable=False),
    Column("conversation_id", ID),
    Column("agent_id", ID),
    Column("policy", String(80)),
    Column("note", Text),
    Column("usage", Float),
    Column("reason", String(40)),
    Column("sentence", Text),
    Column("compaction_id", ID),
    # Which change of its watch the event was: closing a watch closes what its claim had seen, no later one.
    Column("watch_revision", Integer),
    Column("attempts", Integer, nullable=False, server_default="0"),
    time("received_at", nullable=False),
    time("enqueued_at"),
    time("not_before"),
    Column("lease_owner", String(120)),
    time("lease_until"),
    time("finished_at"),
    Column("trace", TRACE),
    # The same delivery is one event, however often it comes. The key first: it alone tells rows apart.
    Index("uq_events_key_source", "key", "source", unique=True),
    Index("ix_events_state_received_at", "state", "received_at"),
    partial_index("ix_events_received", "enqueued_at", "not_before", "received_at", where=RECEIVED),
    partial_index("ix_events_running", "lease_until", where="lease_until IS NOT NULL"),
    partial_index("ix_events_watched", "agent_id", "conversation_id", "policy", where=WATCHED),
    partial_index("ix_events_closed", "finished_at", where="finished_at IS NOT NULL"),
)

watches = Table(
    "watches",
    metadata,
    Column("agent_id", ID, primary_key=True),
    Column("conversation_id", ID, primary_key=True),
    Column("policy", String(80), primary_key=True),
    time("due_at", nullable=False),
    time("first_event_at", nullable=False),
    time("last_event_at", nullable=False),
    Column("events", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("usage", Float),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("reason", String(40)),
    Column("sentence", Text),
    Column("lease_owner", String(120)),
    time("lease_until"),
    Column("trace", TRACE),
    Index("ix_watches_due_at", "due_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", ID, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("type", String(40), nullable=False),
    Column("subject_id", ID, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    time("next_at"),
    Column("last_status", Integer),
    Column("last_error", Text),
    time("created_at", nullable=False),
    time("delivered_at"),
    Column("lease_owner", String(120)),
    time("lease_until"),
    Index("ix_deliveries_state_created_at", "state", "created_at"),
    partial_index("ix_deliveries_pending", "next_at", where="next_at IS NOT NULL"),
)
