"""What came in by the door, the conversations watched because of it, and what goes out to others."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _events()
    _watches()
    _deliveries()


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.String(140), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("key", sa.String(440), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("conversation_id", sa.String(140)),
        sa.Column("agent_id", sa.String(140)),
        sa.Column("policy", sa.String(80)),
        sa.Column("note", sa.Text()),
        sa.Column("usage", sa.Float()),
        sa.Column("reason", sa.String(40)),
        sa.Column("sentence", sa.Text()),
        sa.Column("compaction_id", sa.String(140)),
        sa.Column("watch_revision", sa.Integer()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("enqueued_at", TIME),
        sa.Column("not_before", TIME),
        sa.Column("lease_owner", sa.String(120)),
        sa.Column("lease_until", TIME),
        sa.Column("finished_at", TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("uq_events_key_source", "events", ["key", "source"], unique=True)
    op.create_index("ix_events_state_received_at", "events", ["state", "received_at"])
    _partial_index("ix_events_received", "events", ["enqueued_at", "not_before", "received_at"], "state = 'received'")
    _partial_index("ix_events_running", "events", ["lease_until"], "lease_until IS NOT NULL")
    _partial_index("ix_events_watched", "events", ["agent_id", "conversation_id", "policy"], "state = 'watched'")
    _partial_index("ix_events_closed", "events", ["finished_at"], "finished_at IS NOT NULL")


def _watches() -> None:
    op.create_table(
        "watches",
        sa.Column("agent_id", sa.String(140), nullable=False),
        sa.Column("conversation_id", sa.String(140), nullable=False),
        sa.Column("policy", sa.String(80), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("first_event_at", TIME, nullable=False),
        sa.Column("last_event_at", TIME, nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("usage", sa.Float()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("reason", sa.String(40)),
        sa.Column("sentence", sa.Text()),
        sa.Column("lease_owner", sa.String(120)),
        sa.Column("lease_until", TIME),
        sa.PrimaryKeyConstraint("agent_id", "conversation_id", "policy", name=op.f("pk_watches")),
    )
    op.create_index("ix_watches_due_at", "watches", ["due_at"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(140), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("subject_id", sa.String(140), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("next_at", TIME),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("delivered_at", TIME),
        sa.Column("lease_owner", sa.String(120)),
        sa.Column("lease_until", TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_state_created_at", "deliveries", ["state", "created_at"])
    _partial_index("ix_deliveries_pending", "deliveries", ["next_at"], "next_at IS NOT NULL")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
