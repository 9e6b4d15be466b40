"""The tables of sums: what would take long to add up from a million rows, kept added up.

Closed rows never change, so that a sum over them is exact for ever once their closing has added to it, in the same
transaction. Usages are summed in millionths and times in milliseconds: whole numbers add up alike in any order.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Column, Date, ForeignKey, Index, Integer, String, Table

from worker.audit.columns import ID, metadata, time

BUCKETS = tuple(range(1, 12))
"""The parts of a usage histogram, by their number: up to 0.1 of the window, ... up to 1.0, and over it."""

EVER = date.min
"""Stands for a day in the sums over every day: a monitor asks for these four times a minute."""

BEFORE, AFTER = "usage_before_bucket", "usage_after_bucket"


def bucket_column(side: str, number: int) -> str:
    """Name the column that counts one part of a histogram. side: BEFORE or AFTER."""
    return f"{side}_{number}"


def _amount(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


totals = Table(
    "totals",
    metadata,
    # The day, in UTC, on which the compactions were planned; EVER for all of them together.
    Column("day", Date, primary_key=True),
    Column("state", String(20), primary_key=True),
    Column("outcome", String(40), primary_key=True),
    Column("reason", String(40), primary_key=True),
    Column("trigger", String(40), primary_key=True),
    Column("schedule", String(80), primary_key=True),
    Column("policy", String(80), primary_key=True),
    Column("model", ID, primary_key=True),
    # In alphabetical order, separated by spaces.
    Column("flags", String(200), primary_key=True),
    _amount("compactions"),
    # How many of them succeeded and were measured afterwards: usages, tokens and histograms are these ones'.
    _amount("measured"),
    _amount("usage_before_millionths"),
    _amount("usage_after_millionths"),
    _amount("tokens_before"),
    _amount("tokens_after"),
    _amount("tokens_freed"),
    _amount("tokens_read_estimated"),
    _amount("tokens_written_estimated"),
    _amount("messages_evicted"),
    _amount("messages_dropped"),
    _amount("milliseconds"),
    *(_amount(bucket_column(side, number)) for side in (BEFORE, AFTER) for number in BUCKETS),
    time("first_planned_at", nullable=False),
    time("last_finished_at", nullable=False),
)

scan_totals = Table(
    "scan_totals",
    metadata,
    Column("schedule", String(80), primary_key=True),
    Column("trigger", String(40), primary_key=True),
    Column("state", String(20), primary_key=True),
    _amount("scans"),
    _amount("listed"),
    _amount("measured"),
    _amount("planned"),
    _amount("requests"),
    _amount("milliseconds"),
    _amount("last_milliseconds"),
    time("last_finished_at", nullable=False),
)

flagged = Table(
    "flagged",
    metadata,
    Column("flag", String(40), primary_key=True),
    time("planned_at", primary_key=True),
    Column("compaction_id", ID, ForeignKey("compactions.id"), primary_key=True),
    Column("agent_id", ID, nullable=False),
    Index("ix_flagged_agent_id_flag_planned_at", "agent_id", "flag", "planned_at"),
)
"""An index: the closed compactions that carry a flag, in the order in which they are listed."""

webhook_answers = Table(
    "webhook_answers",
    metadata,
    Column("route", String(80), primary_key=True),
    Column("status", Integer, primary_key=True),
    _amount("answers"),
)
