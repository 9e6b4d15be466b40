"""The ledger's first schema: scans and their pages, conversations, compactions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("agent_id", sa.String(length=140), nullable=False),
        sa.Column("conversation_id", sa.String(length=140), nullable=False),
        sa.Column("first_seen_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME, nullable=False),
        sa.Column("last_message_at", TIME, nullable=True),
        sa.Column("window", sa.Integer(), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=True),
        sa.Column("usage", sa.Float(), nullable=True),
        sa.Column("usage_source", sa.String(length=40), nullable=True),
        sa.Column("num_messages", sa.Integer(), nullable=True),
        sa.Column("measured_at", TIME, nullable=True),
        sa.Column("measured_activity", TIME, nullable=True),
        sa.Column("decision", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=True),
        sa.Column("decided_at", TIME, nullable=True),
        sa.Column("scan_id", sa.String(length=140), nullable=True),
        sa.Column("last_compaction_id", sa.String(length=140), nullable=True),
        sa.Column("last_compacted_at", TIME, nullable=True),
        sa.Column("failures_in_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column("refusals_in_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", TIME, nullable=True),
        sa.PrimaryKeyConstraint("agent_id", "conversation_id", name=op.f("pk_conversations")),
    )
    op.create_index("ix_conversations_usage", "conversations", ["usage"], unique=False)
    op.create_table(
        "scans",
        sa.Column("id", sa.String(length=140), nullable=False),
        sa.Column("trigger", sa.String(length=40), nullable=False),
        sa.Column("schedule", sa.String(length=80), nullable=True),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("policy_version", sa.String(length=16), nullable=False),
        sa.Column("policy_body", JSON, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("listing_done", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("listed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("planned", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("sentence", sa.Text(), nullable=True),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("lease_owner", sa.String(length=120), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scans")),
    )
    op.create_index("ix_scans_started_at", "scans", ["started_at"], unique=False)
    op.create_index(
        "uq_scans_running_schedule",
        "scans",
        ["schedule"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "compactions",
        sa.Column("id", sa.String(length=140), nullable=False),
        sa.Column("agent_id", sa.String(length=140), nullable=False),
        sa.Column("conversation_id", sa.String(length=140), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("trigger", sa.String(length=40), nullable=False),
        sa.Column("scan_id", sa.String(length=140), nullable=True),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("policy_version", sa.String(length=16), nullable=False),
        sa.Column("policy_body", JSON, nullable=False),
        sa.Column("asked", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("window", sa.Integer(), nullable=True),
        sa.Column("usage_source", sa.String(length=40), nullable=True),
        sa.Column("usage_before", sa.Float(), nullable=True),
        sa.Column("usage_expected", sa.Float(), nullable=True),
        sa.Column("usage_after", sa.Float(), nullable=True),
        sa.Column("tokens_before", sa.Integer(), nullable=True),
        sa.Column("tokens_after", sa.Integer(), nullable=True),
        sa.Column("num_messages_before", sa.Integer(), nullable=True),
        sa.Column("num_messages_after", sa.Integer(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("mode_used", sa.String(length=40), nullable=True),
        sa.Column("flags", JSON, nullable=False),
        sa.Column("ids_before", JSON, nullable=True),
        sa.Column("ids_after", JSON, nullable=True),
        sa.Column("ids_kept", JSON, nullable=True),
        sa.Column("ids_lost", JSON, nullable=True),
        sa.Column("ids_dropped", JSON, nullable=True),
        sa.Column("newest_before", TIME, nullable=True),
        sa.Column("outcome", sa.String(length=40), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("recovered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("planned_at", TIME, nullable=False),
        sa.Column("enqueued_at", TIME, nullable=True),
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("posted_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("lease_owner", sa.String(length=120), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id", "conversation_id"],
            ["conversations.agent_id", "conversations.conversation_id"],
            name=op.f("fk_compactions_agent_id"),
        ),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("fk_compactions_scan_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compactions")),
    )
    op.create_index(
        "ix_compactions_conversation_id_planned_at", "compactions", ["conversation_id", "planned_at"], unique=False
    )
    op.create_index("ix_compactions_planned_at", "compactions", ["planned_at"], unique=False)
    op.create_index("ix_compactions_scan_id", "compactions", ["scan_id"], unique=False)
    op.create_index("ix_compactions_state_planned_at", "compactions", ["state", "planned_at"], unique=False)
    op.create_index(
        "uq_compactions_open",
        "compactions",
        ["agent_id", "conversation_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('planned', 'running')"),
        postgresql_where=sa.text("state IN ('planned', 'running')"),
    )
    op.create_table(
        "scan_pages",
        sa.Column("scan_id", sa.String(length=140), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("candidates", JSON, nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.String(length=120), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("fk_scan_pages_scan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("scan_id", "number", name=op.f("pk_scan_pages")),
    )
