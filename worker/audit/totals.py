"""Sums over closed rows, kept exact by each closing: it adds to them in its own transaction, and last of all.

A closing holds its compaction's row, then its conversation's, then its sums over all days, then over its day; nobody
takes them the other way round, so that closings wait for each other's sums but never in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, case, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from worker.audit.database import Database
from worker.audit.records import Compaction, Scan, State
from worker.audit.tables import flagged, scan_totals, scans, totals, webhook_answers
from worker.audit.totaltables import AFTER, BEFORE, BUCKETS, EVER, bucket_column

BYTES_A_TOKEN = 4
"""What a token of a summary is taken to be; nobody tells what the summarizer counted."""

MILLION = 1_000_000


def add_compaction(connection: Connection, row: Compaction) -> None:
    """Add a compaction that this transaction has closed."""
    schedule = None
    if row.scan_id is not None:
        schedule = connection.scalar(select(scans.c.schedule).where(scans.c.id == row.scan_id))
    key = {
        "state": row.state,
        "outcome": row.outcome or "",
        "reason": row.reason,
        "trigger": row.trigger,
        "schedule": schedule or "",
        "policy": row.policy,
        "model": row.model,
        "flags": " ".join(sorted(row.flags)),
    }
    finished_at = row.finished_at or row.planned_at
    times = {"first_planned_at": row.planned_at, "last_finished_at": finished_at}
    mark = {"planned_at": row.planned_at, "compaction_id": row.id, "agent_id": row.agent_id}
    marks = [{"flag": flag, **mark} for flag in row.flags]
    if marks:
        connection.execute(insert(flagged), marks)
    _add(connection, totals, [{"day": day, **key} for day in (EVER, row.planned_at.date())], amounts(row), times)


def amounts(row: Compaction) -> dict[str, int]:
    """Give what one closed compaction adds to each sum.

    What the summarizer read is estimated as what left the context, what it wrote as the length of the summary: both
    in tokens, and nothing for a compaction that could not be measured, or was refused after the model was paid.
    """
    before, after, tokens_before, tokens_after = _measured(row) or (0, 0, 0, 0)
    measured = int(_measured(row) is not None)
    written = -(-len((row.summary or "").encode()) // BYTES_A_TOKEN)
    freed = tokens_before - tokens_after
    took = (row.finished_at or row.planned_at) - (row.started_at or row.planned_at)
    return {
        "compactions": 1,
        "measured": measured,
        "usage_before_millionths": before,
        "usage_after_millionths": after,
        "tokens_before": tokens_before,
        "tokens_after": tokens_after,
        "tokens_freed": max(freed, 0),
        "tokens_read_estimated": max(freed + written, 0) if measured else 0,
        "tokens_written_estimated": written,
        "messages_evicted": _evicted(row),
        "messages_dropped": len(row.ids_dropped or ()),
        "milliseconds": _milliseconds(took),
        **_bucketed(BEFORE, before if measured else None),
        **_bucketed(AFTER, after if measured else None),
    }


def add_scan(connection: Connection, row: Scan) -> None:
    """Add a scan that this transaction has closed, or recorded as skipped."""
    finished_at = row.finished_at or row.started_at
    took = _milliseconds(finished_at - row.started_at)
    key = {"schedule": row.schedule or "", "trigger": row.trigger, "state": row.state}
    sums = {"scans": 1, "milliseconds": took}
    sums |= {name: getattr(row, name) for name in ("listed", "measured", "planned", "requests")}
    _add(connection, scan_totals, [key], sums, {"last_finished_at": finished_at}, {"last_milliseconds": took})


class Answers:
    """How often the door gave which answer, over all its processes and restarts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, answers: Mapping[tuple[str, int], int]) -> None:
        """Add counts by (route, status). route: the door's own name of it, never a path as it was asked for."""
        with self._database.write() as connection:
            # In one order, so that two doors that add at once never wait for each other in a circle.
            for (route, status), count in sorted(answers.items()):
                _add(connection, webhook_answers, [{"route": route, "status": status}], {"answers": count}, {})


def _add(
    connection: Connection,
    table: Table,
    keys: Sequence[Mapping[str, Any]],
    sums: Mapping[str, int],
    times: Mapping[str, datetime],
    latest: Mapping[str, int] | None = None,
) -> None:
    """Add to the row of each key, making it at first sight.

    times: first_... keep the earliest, last_... the latest; latest: kept from whichever finished last.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values([{**key, **sums, **times, **(latest or {})} for key in keys])
    new, old = statement.excluded, table.c
    changes: dict[str, Any] = {name: old[name] + new[name] for name in sums}
    for name in times:
        moved = new[name] < old[name] if name.startswith("first_") else new[name] > old[name]
        changes[name] = case((moved, new[name]), else_=old[name])
    for name in latest or {}:
        changes[name] = case((new.last_finished_at >= old.last_finished_at, new[name]), else_=old[name])
    connection.execute(statement.on_conflict_do_update(index_elements=list(keys[0]), set_=changes))


def _measured(row: Compaction) -> tuple[int, int, int, int] | None:
    """Give usage before and after, in millionths, and tokens before and after, of a success whose effect was seen."""
    if row.state != State.SUCCEEDED or row.usage_before is None or row.usage_after is None:
        return None
    if row.tokens_before is None or row.tokens_after is None:
        return None
    return _millionths(row.usage_before), _millionths(row.usage_after), row.tokens_before, row.tokens_after


def _evicted(row: Compaction) -> int:
    """Count the messages that left the context; the summary that came in their place is not one that stayed."""
    if row.state != State.SUCCEEDED or row.num_messages_before is None or row.num_messages_after is None:
        return 0
    return max(row.num_messages_before - row.num_messages_after + 1, 0)


def _bucketed(side: str, millionths: int | None) -> dict[str, int]:
    tenth = None if millionths is None else max(1, min(BUCKETS[-1], -(-millionths // (MILLION // 10))))
    return {bucket_column(side, number): int(number == tenth) for number in BUCKETS}


def _millionths(usage: float) -> int:
    # As SQL rounds in the migration: half up, on the same floating point numbers.
    return int(usage * 1e6 + 0.5)


def _milliseconds(span: timedelta) -> int:
    return max(span // timedelta(milliseconds=1), 0)
