"""The ledger's tables. What is in them is the truth; the broker only carries their ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no zone, so it is put off there and put on again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: it would mean something else on each machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware datetimes only")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give every time back in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_JSON: JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_ID = String(140)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

OPEN = "state IN ('planned', 'running')"
"""The states a compaction can still leave."""


def _time(name: str, *, nullable: bool = True, **options: Any) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable, **options)


scans = Table(
    "scans",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("trigger", String(40), nullable=False),
    Column("schedule", String(80)),
    Column("policy", String(80), nullable=False),
    Column("policy_version", String(16), nullable=False),
    Column("policy_body", _JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("listing_done", Boolean, nullable=False, server_default=text("false")),
    Column("pages", Integer, nullable=False, server_default="0"),
    Column("listed", Integer, nullable=False, server_default="0"),
    Column("planned", Integer, nullable=False, server_default="0"),
    Column("reasons", _JSON, nullable=False),
    Column("sentence", Text),
    _time("started_at", nullable=False),
    _time("finished_at"),
    Column("lease_owner", String(120)),
    _time("lease_until"),
    Index("ix_scans_started_at", "started_at"),
    # The same schedule never scans twice at once, however many beats tick.
    Index(
        "uq_scans_running_schedule",
        "schedule",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
)

scan_pages = Table(
    "scan_pages",
    metadata,
    Column("scan_id", _ID, ForeignKey("scans.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("candidates", _JSON, nullable=False),
    Column("reasons", _JSON, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_owner", String(120)),
    _time("lease_until"),
    _time("finished_at"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("agent_id", _ID, primary_key=True),
    Column("conversation_id", _ID, primary_key=True),
    _time("first_seen_at", nullable=False),
    _time("last_seen_at", nullable=False),
    _time("last_message_at"),
    Column("window", Integer),
    Column("tokens", Integer),
    Column("usage", Float),
    Column("usage_source", String(40)),
    Column("num_messages", Integer),
    _time("measured_at"),
    _time("measured_activity"),
    Column("decision", String(20)),
    Column("reason", String(40)),
    Column("sentence", Text),
    _time("decided_at"),
    Column("scan_id", _ID),
    Column("last_compaction_id", _ID),
    _time("last_compacted_at"),
    Column("failures_in_row", Integer, nullable=False, server_default="0"),
    Column("refusals_in_row", Integer, nullable=False, server_default="0"),
    _time("not_before"),
    Index("ix_conversations_usage", "usage"),
)

compactions = Table(
    "compactions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("agent_id", _ID, nullable=False),
    Column("conversation_id", _ID, nullable=False),
    Column("state", String(20), nullable=False),
    Column("trigger", String(40), nullable=False),
    Column("scan_id", _ID, ForeignKey("scans.id")),
    Column("policy", String(80), nullable=False),
    Column("policy_version", String(16), nullable=False),
    Column("policy_body", _JSON, nullable=False),
    Column("asked", Boolean, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("settings", _JSON, nullable=False),
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
    Column("flags", _JSON, nullable=False),
    Column("ids_before", _JSON),
    Column("ids_after", _JSON),
    Column("ids_kept", _JSON),
    Column("ids_lost", _JSON),
    Column("ids_dropped", _JSON),
    _time("newest_before"),
    Column("outcome", String(40)),
    Column("error", Text),
    Column("response", Text),
    Column("recovered", Boolean, nullable=False, server_default=text("false")),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _time("planned_at", nullable=False),
    _time("enqueued_at"),
    _time("not_before"),
    _time("started_at"),
    _time("posted_at"),
    _time("finished_at"),
    Column("lease_owner", String(120)),
    _time("lease_until"),
    Column("heartbeats", Integer, nullable=False, server_default="0"),
    Column("model", _ID, nullable=False, server_default=""),
    Column("safety_copy_id", _ID),
    ForeignKeyConstraint(["agent_id", "conversation_id"], ["conversations.agent_id", "conversations.conversation_id"]),
    # The lock: one open compaction of a conversation, whoever asks for it.
    Index(
        "uq_compactions_open",
        "agent_id",
        "conversation_id",
        unique=True,
        sqlite_where=text(OPEN),
        postgresql_where=text(OPEN),
    ),
    Index("ix_compactions_conversation_id_planned_at", "conversation_id", "planned_at"),
    Index("ix_compactions_planned_at", "planned_at"),
    Index("ix_compactions_state_planned_at", "state", "planned_at"),
    Index("ix_compactions_scan_id", "scan_id"),
)

throttles = Table(
    "throttles",
    metadata,
    Column("handle", _ID, primary_key=True),
    Column("limit", Float, nullable=False),
    _time("paused_until"),
    Column("failures_in_row", Integer, nullable=False),
    Column("openings", Integer, nullable=False),
    _time("open_until"),
)

safety_copies = Table(
    "safety_copies",
    metadata,
    Column("conversation_id", _ID, primary_key=True),
    Column("agent_id", _ID, nullable=False),
    Column("compaction_id", _ID, ForeignKey("compactions.id"), nullable=False),
    _time("made_at", nullable=False),
    _time("keep_until", nullable=False),
    _time("removed_at"),
    Index("ix_safety_copies_keep_until", "keep_until"),
)
