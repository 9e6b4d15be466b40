"""Safety copies: forks made before a compaction, so that it can be undone by hand; kept for a while, then removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select, update

from worker.audit.database import Database
from worker.audit.tables import safety_copies


class SafetyCopies:
    """Remember which conversations are copies of ours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def made(
        self, conversation_id: str, *, agent_id: str, compaction_id: str, now: datetime, keep_until: datetime
    ) -> None:
        """Write a copy down as soon as its id is known."""
        with self._database.write() as connection:
            connection.execute(
                insert(safety_copies).values(
                    conversation_id=conversation_id,
                    agent_id=agent_id,
                    compaction_id=compaction_id,
                    made_at=now,
                    keep_until=keep_until,
                )
            )

    def among(self, conversation_ids: Sequence[str]) -> set[str]:
        """Tell which of these conversations are copies."""
        if not conversation_ids:
            return set()
        with self._database.read() as connection:
            query = select(safety_copies.c.conversation_id).where(safety_copies.c.conversation_id.in_(conversation_ids))
            return set(connection.scalars(query))

    def due(self, *, now: datetime, limit: int) -> list[str]:
        """Give the copies whose time is over."""
        with self._database.read() as connection:
            query = select(safety_copies.c.conversation_id).where(
                safety_copies.c.removed_at.is_(None), safety_copies.c.keep_until <= now
            )
            return list(connection.scalars(query.order_by(safety_copies.c.keep_until).limit(limit)))

    def removed(self, conversation_id: str, *, now: datetime) -> None:
        """Note that a copy is gone from the server."""
        with self._database.write() as connection:
            connection.execute(
                update(safety_copies).where(safety_copies.c.conversation_id == conversation_id).values(removed_at=now)
            )
