"""Sums kept added up, an index of flagged compactions, indexes for the views, and the door's answers."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TIME = sa.DateTime(timezone=True)

KEYS: dict[str, sa.types.TypeEngine[Any]] = {
    "day": sa.Date(),
    "state": sa.String(20),
    "outcome": sa.String(40),
    "reason": sa.String(40),
    "trigger": sa.String(40),
    "schedule": sa.String(80),
    "policy": sa.String(80),
    "model": sa.String(140),
    "flags": sa.String(200),
}

BUCKETS = [f"usage_{side}_bucket_{number}" for side in ("before", "after") for number in range(1, 12)]

AMOUNTS = [
    "compactions", "measured", "usage_before_millionths", "usage_after_millionths", "tokens_before", "tokens_after",
    "tokens_freed", "tokens_read_estimated", "tokens_written_estimated", "messages_evicted", "messages_dropped",
    "milliseconds", *BUCKETS,
]  # fmt: skip

EVER = "'0001-01-01'"

POSTGRESQL = {
    "day": "(c.planned_at AT TIME ZONE 'UTC')::date",
    "flags": """coalesce(
      (SELECT string_agg(f, ' ' ORDER BY f COLLATE "C") FROM jsonb_array_elements_text(c.flags) AS f), '')""",
    "dropped": "coalesce(jsonb_array_length(c.ids_dropped), 0)",
    "bytes": "coalesce(octet_length(c.summary), 0)",
    "before": "floor(c.usage_before * 1e6 + 0.5)::bigint",
    "after": "floor(c.usage_after * 1e6 + 0.5)::bigint",
    "took": "floor(extract(epoch FROM c.finished_at - coalesce(c.started_at, c.planned_at)) * 1000)::bigint",
    "scan_took": "floor(extract(epoch FROM finished_at - started_at) * 1000)::bigint",
    "largest": "greatest",
    "flag": "SELECT f, c.planned_at, c.id, c.agent_id FROM compactions c, jsonb_array_elements_text(c.flags) AS f",
}  # fmt: skip

MICROSECONDS = "(CAST(strftime('%s', {0}) AS INTEGER) * 1000000 + CAST(substr({0}, 21, 6) AS INTEGER))"


def _sqlite_took(start: str, end: str) -> str:
    return f"({MICROSECONDS.format(end)} - {MICROSECONDS.format(start)}) / 1000"


SQLITE = {
    "day": "substr(c.planned_at, 1, 10)",
    "flags": """coalesce(
      (SELECT group_concat(value, ' ') FROM (SELECT value FROM json_each(c.flags) ORDER BY value)), '')""",
    "dropped": "coalesce(json_array_length(c.ids_dropped), 0)",
    "bytes": "coalesce(length(CAST(c.summary AS BLOB)), 0)",
    "before": "CAST(c.usage_before * 1e6 + 0.5 AS INTEGER)",
    "after": "CAST(c.usage_after * 1e6 + 0.5 AS INTEGER)",
    "took": _sqlite_took("coalesce(c.started_at, c.planned_at)", "c.finished_at"),
    "scan_took": _sqlite_took("started_at", "finished_at"),
    "largest": "max",
    "flag": "SELECT f.value, c.planned_at, c.id, c.agent_id FROM compactions c, json_each(c.flags) AS f",
}  # fmt: skip


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Nothing may be closed between the sums of what is closed and the end of this.
        op.execute("LOCK TABLE scans, compactions IN SHARE ROW EXCLUSIVE MODE")
    _tables()
    with op.batch_alter_table("scans") as table:
        table.add_column(sa.Column("measured", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("requests", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_compactions_agent_id_planned_at", "compactions", ["agent_id", "planned_at"])
    op.drop_index("ix_compactions_scan_id", "compactions")
    op.create_index("ix_compactions_scan_id_planned_at", "compactions", ["scan_id", "planned_at"])
    op.drop_index("ix_conversations_usage", "conversations")
    view = ["usage", "conversation_id", "agent_id"]
    op.create_index("ix_conversations_usage_conversation_id_agent_id", "conversations", view)
    op.create_index("ix_conversations_reason_usage_conversation_id_agent_id", "conversations", ["reason", *view])
    op.create_index("ix_conversations_not_before", "conversations", ["not_before"])
    failing = sa.text("failures_in_row > 0")
    op.create_index(
        "ix_conversations_failing",
        "conversations",
        ["failures_in_row"],
        sqlite_where=failing,
        postgresql_where=failing,
    )
    backfill(connection)


def _tables() -> None:
    op.create_table(
        "totals",
        *(sa.Column(name, kind, nullable=False) for name, kind in KEYS.items()),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in AMOUNTS),
        sa.Column("first_planned_at", TIME, nullable=False),
        sa.Column("last_finished_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint(*KEYS, name=op.f("pk_totals")),
    )
    op.create_table(
        "scan_totals",
        sa.Column("schedule", sa.String(80), nullable=False),
        sa.Column("trigger", sa.String(40), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("scans", "listed", "measured", "planned", "requests", "milliseconds", "last_milliseconds")
        ),
        sa.Column("last_finished_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("schedule", "trigger", "state", name=op.f("pk_scan_totals")),
    )
    op.create_table(
        "flagged",
        sa.Column("flag", sa.String(40), nullable=False),
        sa.Column("planned_at", TIME, nullable=False),
        sa.Column("compaction_id", sa.String(140), nullable=False),
        sa.Column("agent_id", sa.String(140), nullable=False),
        sa.ForeignKeyConstraint(["compaction_id"], ["compactions.id"], name=op.f("fk_flagged_compaction_id")),
        sa.PrimaryKeyConstraint("flag", "planned_at", "compaction_id", name=op.f("pk_flagged")),
    )
    op.create_index("ix_flagged_agent_id_flag_planned_at", "flagged", ["agent_id", "flag", "planned_at"])
    op.create_table(
        "webhook_answers",
        sa.Column("route", sa.String(80), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("route", "status", name=op.f("pk_webhook_answers")),
    )


def backfill(connection: sa.Connection) -> None:
    """Add up what is closed already."""
    words = POSTGRESQL if connection.dialect.name == "postgresql" else SQLITE
    connection.execute(sa.text(_sums(words)))
    connection.execute(sa.text(_sums_of_all_days()))
    connection.execute(sa.text(_scan_sums(words)))
    closed = "c.state IN ('succeeded', 'refused', 'failed')"
    flagged = "INSERT INTO flagged (flag, planned_at, compaction_id, agent_id)"
    connection.execute(sa.text(f"{flagged} {words['flag']} WHERE {closed}"))


def _sums(words: dict[str, str]) -> str:
    largest = words["largest"]
    buckets = [
        f"sum(CASE WHEN measured = 1 AND {largest}(1, {_bucket(side, largest)}) = {number} THEN 1 ELSE 0 END)"
        for side in ("before", "after")
        for number in range(1, 12)
    ]
    keys = ", ".join(KEYS)
    return f"""
        INSERT INTO totals ({keys}, {", ".join(AMOUNTS)}, first_planned_at, last_finished_at)
        SELECT {keys}, count(*), sum(measured), sum(measured * coalesce(before, 0)), sum(measured * coalesce(after, 0)),
          sum(measured * coalesce(tokens_before, 0)), sum(measured * coalesce(tokens_after, 0)),
          sum(measured * {largest}(freed, 0)), sum(measured * {largest}(freed + written, 0)), sum(written),
          sum(CASE WHEN state = 'succeeded' THEN {largest}(evicted, 0) ELSE 0 END), sum(dropped),
          sum({largest}(took, 0)), {", ".join(buckets)}, min(planned_at), max(finished_at)
        FROM (
          SELECT {words["day"]} AS day, c.state, coalesce(c.outcome, '') AS outcome, c.reason, c."trigger",
            coalesce(s.schedule, '') AS schedule, c.policy, c.model, {words["flags"]} AS flags,
            CASE WHEN c.state = 'succeeded' AND c.usage_before IS NOT NULL AND c.usage_after IS NOT NULL
              AND c.tokens_before IS NOT NULL AND c.tokens_after IS NOT NULL THEN 1 ELSE 0 END AS measured,
            {words["before"]} AS before, {words["after"]} AS after, c.tokens_before, c.tokens_after,
            coalesce(c.tokens_before - c.tokens_after, 0) AS freed, ({words["bytes"]} + 3) / 4 AS written,
            coalesce(c.num_messages_before - c.num_messages_after + 1, 0) AS evicted, {words["dropped"]} AS dropped,
            {words["took"]} AS took, c.planned_at, c.finished_at
          FROM compactions c LEFT JOIN scans s ON s.id = c.scan_id
          WHERE c.state IN ('succeeded', 'refused', 'failed')
        ) AS closed
        GROUP BY {keys}"""  # noqa: S608 - our own words


def _sums_of_all_days() -> str:
    rest = ", ".join(name for name in KEYS if name != "day")
    return f"""
        INSERT INTO totals (day, {rest}, {", ".join(AMOUNTS)}, first_planned_at, last_finished_at)
        SELECT {EVER}, {rest}, {", ".join(f"sum({name})" for name in AMOUNTS)},
          min(first_planned_at), max(last_finished_at)
        FROM totals GROUP BY {rest}"""  # noqa: S608 - our own words


def _bucket(side: str, largest: str) -> str:
    return f"{'least' if largest == 'greatest' else 'min'}(11, ({side} + 99999) / 100000)"


def _scan_sums(words: dict[str, str]) -> str:
    return f"""
        INSERT INTO scan_totals (schedule, "trigger", state, scans, listed, measured, planned, requests, milliseconds,
          last_milliseconds, last_finished_at)
        SELECT schedule, "trigger", state, count(*), sum(listed), 0, sum(planned), 0, sum(took),
          max(CASE WHEN newest = 1 THEN took ELSE 0 END), max(finished_at)
        FROM (
          SELECT coalesce(schedule, '') AS schedule, "trigger", state, listed, planned, finished_at,
            {words["largest"]}({words["scan_took"]}, 0) AS took,
            row_number() OVER (
              PARTITION BY coalesce(schedule, ''), "trigger", state ORDER BY finished_at DESC) AS newest
          FROM scans WHERE state <> 'running'
        ) AS closed
        GROUP BY schedule, "trigger", state"""  # noqa: S608 - our own words
