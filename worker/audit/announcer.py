"""What is told to others: put into the ledger by the very transaction that makes it true, and sent from there later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert

from worker.audit.eventtables import deliveries
from worker.audit.records import Compaction, DeliveryState, Scan, ScanState, State
from worker.discretion import discreet

SUCCEEDED = "compaction.succeeded"
FAILED = "compaction.failed"
MESSAGES_DROPPED = "compaction.messages_dropped"
SCAN_FINISHED = "scan.finished"

HEARTBEAT = "heartbeat"
"""A delivery without a body: its URL is called, and that is all that it says."""

_OF_A_COMPACTION = (
    "id",
    "agent_id",
    "conversation_id",
    "state",
    "outcome",
    "trigger",
    "scan_id",
    "policy",
    "reason",
    "sentence",
    "model",
    "usage_before",
    "usage_after",
    "tokens_before",
    "tokens_after",
    "num_messages_before",
    "num_messages_after",
    "flags",
    "recovered",
    "error",
    "planned_at",
    "finished_at",
)

_OF_A_SCAN = (
    "id",
    "trigger",
    "schedule",
    "policy",
    "policy_version",
    "state",
    "pages",
    "listed",
    "planned",
    "reasons",
    "sentence",
    "started_at",
    "finished_at",
)


@dataclass(frozen=True, slots=True)
class Announcer:
    """Writes a delivery for each endpoint, inside the caller's transaction; without endpoints it does nothing.

    with_summary: whether a compaction's summary, which is what was said in the conversation, is told too. heartbeat:
    a URL to be called after a schedule's scan, with `{schedule}` in it for the schedule's name.
    """

    endpoints: tuple[str, ...] = ()
    with_summary: bool = False
    heartbeat: str | None = None

    def compaction(self, connection: Connection, row: Compaction, *, now: datetime) -> None:
        """Tell of a compaction that was closed: that it succeeded, perhaps at the price of messages, or failed."""
        if row.state == State.SUCCEEDED:
            types = [SUCCEEDED, MESSAGES_DROPPED] if row.ids_dropped else [SUCCEEDED]
        elif row.state == State.FAILED:
            types = [FAILED]
        else:
            return
        data = {name: _plain(getattr(row, name)) for name in _OF_A_COMPACTION}
        data["messages_dropped"] = row.ids_dropped or []
        if self.with_summary:
            data["summary"] = row.summary
        for type_ in types:
            self._tell(connection, type_, data, now)

    def scan(self, connection: Connection, row: Scan, *, now: datetime) -> None:
        """Tell of a scan that came to its end, a good one or a bad one."""
        self._tell(connection, SCAN_FINISHED, {name: _plain(getattr(row, name)) for name in _OF_A_SCAN}, now)
        if self.heartbeat is not None and row.schedule is not None and row.state == ScanState.FINISHED:
            url = self.heartbeat.replace("{schedule}", row.schedule)
            connection.execute(insert(deliveries).values(**_delivery(url, HEARTBEAT, row.id, "", now)))

    def _tell(self, connection: Connection, type_: str, data: Mapping[str, Any], now: datetime) -> None:
        if not self.endpoints:
            return
        # ASCII alone, so that no character of a conversation can be one that a database or a receiver refuses.
        body = json.dumps({"type": type_, "timestamp": _plain(now), "data": data}, separators=(",", ":"))
        rows = [_delivery(endpoint, type_, data["id"], body, now) for endpoint in self.endpoints]
        connection.execute(insert(deliveries), rows)


def _delivery(endpoint: str, type_: str, subject_id: str, body: str, now: datetime) -> dict[str, Any]:
    return {
        "id": f"msg-{uuid4()}",
        "endpoint": endpoint,
        "type": type_,
        "subject_id": subject_id,
        "body": body,
        "state": DeliveryState.PENDING,
        "next_at": now,
        "created_at": now,
    }


def _plain(value: Any) -> Any:
    """Give a time as ISO 8601 in UTC, a sentence without what a server answered, anything else as it is."""
    if isinstance(value, str):
        return discreet(value)
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
