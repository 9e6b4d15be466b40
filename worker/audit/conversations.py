"""The ledger's conversations: one row for each ever seen, with its last usage, decision and put-off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.audit.database import Database
from worker.audit.records import OPEN_STATES, Conversation
from worker.audit.tables import FAILING, compactions, conversations

Key = tuple[str, str]
"""(agent id, conversation id); an agent's default conversation has the id `default`."""

KEYS_A_QUERY = 500

_FREED_BY_SUCCESS = {"failures_in_row": 0, "refusals_in_row": 0, "not_before": None}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A conversation's usage as measured. window, tokens: in tokens; activity: the last message it accounts for."""

    window: int
    tokens: int
    num_messages: int
    source: str
    activity: datetime | None

    @property
    def usage(self) -> float:
        """Tokens over the window."""
        return self.tokens / self.window


@dataclass(frozen=True, slots=True)
class Observation:
    """One conversation as a scan saw it, and what was decided about it."""

    agent_id: str
    conversation_id: str
    last_message_at: datetime | None
    decision: str
    reason: str
    sentence: str
    scan_id: str | None = None
    measured: Measurement | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger holds of a conversation: its row, and its open compaction if it has one."""

    conversation: Conversation
    open_compaction: str | None

    def without_open(self) -> Known:
        """Give the same as the open compaction's own worker sees it."""
        return replace(self, open_compaction=None)


class Conversations:
    """Remember what was seen, measured and decided."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, keys: Sequence[Key]) -> dict[Key, Known]:
        """Look up conversations by their keys; those never seen are left out."""
        found: dict[Key, Known] = {}
        with self._database.read() as connection:
            for chunk in _chunks(keys):
                rows = connection.execute(
                    select(conversations, compactions.c.id.label("open_compaction"))
                    .outerjoin(
                        compactions,
                        and_(
                            compactions.c.agent_id == conversations.c.agent_id,
                            compactions.c.conversation_id == conversations.c.conversation_id,
                            compactions.c.state.in_(OPEN_STATES),
                        ),
                    )
                    .where(tuple_(conversations.c.agent_id, conversations.c.conversation_id).in_(chunk))
                )
                for row in rows:
                    found[row.agent_id, row.conversation_id] = Known(Conversation.of(row), row.open_compaction)
        return found

    def record(self, observations: Sequence[Observation], *, now: datetime) -> None:
        """Write down what a scan saw and decided, a page at a time."""
        with self._database.write() as connection:
            for observation in observations:
                observe(connection, observation, now=now)

    def listing(
        self,
        *,
        reason: str | None = None,
        put_off_at: datetime | None = None,
        failures: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Conversation]:
        """Give the ledger's view, the fullest first.

        put_off_at: only those that are put off at this time; failures: only those with so many or more in a row.
        """
        query = select(conversations)
        narrowed = put_off_at is not None or failures is not None
        if reason is not None:
            decided = func.coalesce(conversations.c.reason, "") if narrowed else conversations.c.reason
            query = query.where(decided == reason)
        if put_off_at is not None:
            query = query.where(conversations.c.not_before > put_off_at)
        if failures is not None:
            query = query.where(conversations.c.failures_in_row >= failures, text(FAILING))
        with self._database.read() as connection:
            reading = connection.execution_options(yield_per=500)
            for part in _fullest_first(query, narrowed=narrowed):
                with reading.execute(part.limit(limit)) as rows:
                    for row in rows:
                        limit = None if limit is None else limit - 1
                        yield Conversation.of(row)
                if limit == 0:
                    return


def _fullest_first(query: Select[Any], *, narrowed: bool) -> Iterator[Select[Any]]:
    """Order a view in two parts, the measured and the unmeasured: each one way, as its index can be read backwards.

    narrowed: to few, which are found by another index and sorted. Only their order and their reason stand in the way:
    as expressions, no index serves them.
    """
    conversation, agent = conversations.c.conversation_id, conversations.c.agent_id
    usage: ColumnElement[float | None] = conversations.c.usage + 0 if narrowed else conversations.c.usage
    yield query.where(usage.is_not(None)).order_by(usage.desc(), conversation.desc(), agent.desc())
    yield query.where(usage.is_(None)).order_by(conversation.desc(), agent.desc())


def observe(connection: Connection, seen: Observation, *, now: datetime) -> None:
    """Put one observation into the conversation's row, making the row at first sight."""
    values: dict[str, Any] = {
        "last_seen_at": now,
        "last_message_at": seen.last_message_at,
        "decision": seen.decision,
        "reason": seen.reason,
        "sentence": seen.sentence,
        "decided_at": now,
        "scan_id": seen.scan_id,
    }
    if seen.measured is not None:
        values |= _measured(seen.measured, now)
    key = {"agent_id": seen.agent_id, "conversation_id": seen.conversation_id}
    connection.execute(
        _insert(connection)
        .values(**key, first_seen_at=now, failures_in_row=0, refusals_in_row=0, **values)
        .on_conflict_do_update(index_elements=list(key), set_=values)
    )


def settle_success(
    connection: Connection, key: Key, *, compaction_id: str, measured: Measurement | None, now: datetime
) -> None:
    """Note a compaction that took effect: the cooldown runs from now, what went wrong before is forgiven."""
    values: dict[str, Any] = {"last_compacted_at": now, "last_compaction_id": compaction_id, **_FREED_BY_SUCCESS}
    if measured is not None:
        values |= _measured(measured, now)
    connection.execute(update(conversations).where(_is(key)).values(**values))


def settle_setback(
    connection: Connection,
    key: Key,
    *,
    compaction_id: str,
    column: str,
    delay: Callable[[int], timedelta],
    now: datetime,
) -> None:
    """Count a refusal or a failure in a row and put the conversation off for the longer the more there were.

    column: `refusals_in_row` or `failures_in_row`.
    """
    counter = conversations.c[column]
    in_row = connection.execute(
        update(conversations)
        .where(_is(key))
        .values({counter: counter + 1, conversations.c.last_compaction_id: compaction_id})
        .returning(counter)
    ).scalar_one()
    connection.execute(update(conversations).where(_is(key)).values(not_before=now + delay(in_row)))


def _measured(measured: Measurement, now: datetime) -> dict[str, Any]:
    return {
        "window": measured.window,
        "tokens": measured.tokens,
        "usage": measured.usage,
        "usage_source": measured.source,
        "num_messages": measured.num_messages,
        "measured_at": now,
        "measured_activity": measured.activity,
    }


def _is(key: Key) -> Any:
    return and_(conversations.c.agent_id == key[0], conversations.c.conversation_id == key[1])


def _insert(connection: Connection) -> Any:
    """The two dialects spell the same upsert in two modules."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(conversations)


def _chunks(keys: Sequence[Key]) -> Iterator[list[Key]]:
    for start in range(0, len(keys), KEYS_A_QUERY):
        yield list(keys[start : start + KEYS_A_QUERY])
