"""Heartbeats, the model a compaction is summarized by, limits and breakers, safety copies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("compactions") as table:
        table.add_column(sa.Column("heartbeats", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("model", sa.String(140), nullable=False, server_default=""))
        table.add_column(sa.Column("safety_copy_id", sa.String(140)))
    op.create_table(
        "throttles",
        sa.Column("handle", sa.String(140), nullable=False),
        sa.Column("limit", sa.Float(), nullable=False),
        sa.Column("paused_until", TIME),
        sa.Column("failures_in_row", sa.Integer(), nullable=False),
        sa.Column("openings", sa.Integer(), nullable=False),
        sa.Column("open_until", TIME),
        sa.PrimaryKeyConstraint("handle", name=op.f("pk_throttles")),
    )
    op.create_table(
        "safety_copies",
        sa.Column("conversation_id", sa.String(140), nullable=False),
        sa.Column("agent_id", sa.String(140), nullable=False),
        sa.Column("compaction_id", sa.String(140), nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("keep_until", TIME, nullable=False),
        sa.Column("removed_at", TIME),
        sa.ForeignKeyConstraint(["compaction_id"], ["compactions.id"], name=op.f("fk_safety_copies_compaction_id")),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_safety_copies")),
    )
    op.create_index("ix_safety_copies_keep_until", "safety_copies", ["keep_until"])
