"""Runs, steps and the log of compactions: what happened, as opposed to what there is."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from sandbox.errors import DatabaseRefused, NotFound
from sandbox.ids import now
from sandbox.listing import Order

Run = dict[str, Any]
"""One run, with the fields of Letta's `Run`."""

ACTIVE = ("created", "running")
"""The states of a run that is not over. A non-streaming send leaves its run in the first for ever."""


STATUSES = (*ACTIVE, "completed", "failed", "cancelled")
"""Every state of a run."""


@dataclass(frozen=True)
class RunFilter:
    """Which runs to list; None means whatever."""

    agent_ids: list[str] | None
    conversation_id: str | None
    statuses: list[str] | None
    background: bool | None
    before: str | None
    after: str | None
    order: Order
    limit: int


class Activity:
    """Reads and writes runs, steps and compactions in the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # Runs

    def start_run(self, run_id: str, agent_id: str, conversation_id: str | None, status: str, run_type: str) -> None:
        """Record a run that begins now."""
        body = json.dumps({"metadata": {"run_type": run_type}, "stop_reason": None, "total_duration_ns": None})
        self._db.execute(
            "insert into runs (id, agent_id, conversation_id, status, background, created_at, body)"
            " values (?, ?, ?, ?, 0, ?, ?)",
            (run_id, agent_id, conversation_id, status, now(), body),
        )

    def end_run(self, run_id: str, status: str, stop_reason: str, seconds: float) -> None:
        """Record how a run ended; its end is written without a time zone, as the real server does."""
        row = self._db.execute("select body from runs where id = ?", (run_id,)).fetchone()
        if row is None:
            return
        body = {**json.loads(row["body"]), "stop_reason": stop_reason, "total_duration_ns": int(seconds * 1e9)}
        self._db.execute(
            "update runs set status = ?, completed_at = ?, body = ? where id = ?",
            (status, now().removesuffix("Z"), json.dumps(body), run_id),
        )

    def run(self, run_id: str) -> Run:
        """Return one run, or raise `NotFound`."""
        row = self._db.execute("select * from runs where id = ?", (run_id,)).fetchone()
        if row is None:
            raise NotFound(f"Run not found with id='{run_id}'")
        return _run(row)

    def runs(self, wanted: RunFilter) -> list[Run]:
        """Return the runs that were asked for."""
        where, values = ["1"], list[Any]()
        for column, allowed in (("agent_id", wanted.agent_ids), ("status", wanted.statuses)):
            if allowed:
                where.append(f"{column} in ({','.join('?' * len(allowed))})")
                values += allowed
        for column, value in (("conversation_id", wanted.conversation_id), ("background", wanted.background)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        forward, back = (">", "<") if wanted.order == "asc" else ("<", ">")
        for cursor_id, beyond in ((wanted.after, forward), (wanted.before, back)):
            cursor = self._db.execute("select created_at, id from runs where id = ?", (cursor_id,)).fetchone()
            if cursor is not None:
                where.append(f"(created_at, id) {beyond} (?, ?)")
                values += [cursor["created_at"], cursor["id"]]
        # The pieces are literals of this function; what a caller sent is bound.
        statement = (
            f"select * from runs where {' and '.join(where)}"  # noqa: S608
            f" order by created_at {wanted.order}, id {wanted.order} limit ?"
        )
        return [_run(row) for row in self._db.execute(statement, [*values, wanted.limit])]

    # Steps

    def add_step(self, step: dict[str, Any]) -> None:
        """Store a step, a JSON object with the fields of Letta's `Step`."""
        self._db.execute(
            "insert into steps (id, agent_id, run_id, body) values (?, ?, ?, ?)",
            (step["id"], step["agent_id"], step["run_id"], json.dumps(step)),
        )

    def step(self, step_id: str) -> dict[str, Any]:
        """Return one step, or raise `NotFound`."""
        row = self._db.execute("select body from steps where id = ?", (step_id,)).fetchone()
        if row is None:
            raise NotFound(f"Step not found with id='{step_id}'")
        body: dict[str, Any] = json.loads(row["body"])
        return body

    # Compactions

    def open_compaction(self, conversation: str, entry: dict[str, Any]) -> int:
        """Log a compaction that was asked for; returns the number to close it with."""
        cursor = self._db.execute(
            "insert into compactions (conversation, body) values (?, ?)", (conversation, json.dumps(entry))
        )
        if cursor.lastrowid is None:
            raise DatabaseRefused
        return cursor.lastrowid

    def close_compaction(self, number: int, entry: dict[str, Any]) -> None:
        """Log how a compaction went."""
        self._db.execute("update compactions set body = ? where number = ?", (json.dumps(entry), number))

    def compactions(self) -> dict[str, dict[str, Any]]:
        """Return, for each conversation that was asked to be compacted, the counts and the history."""
        logs: dict[str, dict[str, Any]] = {}
        for row in self._db.execute("select conversation, body from compactions order by number"):
            entry = json.loads(row["body"])
            log = logs.setdefault(
                row["conversation"],
                {"requests": 0, "effective": 0, "refused": 0, "summarizer_calls": 0, "history": []},
            )
            log["requests"] += 1
            log["effective"] += entry["committed"]
            log["refused"] += entry["refused"] is not None
            log["summarizer_calls"] += entry["summarizer_calls"]
            log["history"].append(entry)
        return logs


def _run(row: sqlite3.Row) -> Run:
    body = json.loads(row["body"])
    return {
        "id": row["id"],
        "status": row["status"],
        "created_at": row["created_at"],
        "completed_at": row["completed_at"],
        "agent_id": row["agent_id"],
        "conversation_id": row["conversation_id"],
        "base_template_id": None,
        "background": bool(row["background"]),
        "metadata": body["metadata"],
        "request_config": {
            "use_assistant_message": True,
            "assistant_message_tool_name": "send_message",
            "assistant_message_tool_kwarg": "message",
            "include_return_message_types": None,
        },
        "stop_reason": body["stop_reason"],
        "callback_url": None,
        "callback_sent_at": None,
        "callback_status_code": None,
        "callback_error": None,
        "ttft_ns": None,
        "total_duration_ns": body["total_duration_ns"],
    }
