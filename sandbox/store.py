"""Agents, conversations and messages in the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sandbox import listing
from sandbox.errors import NotFound
from sandbox.ids import DEFAULT_CONVERSATION, USER_ID, now, shown
from sandbox.listing import MessagePage, Page
from sandbox.messages import Stored

Agent = dict[str, Any]
"""One agent: id, name, created_at, updated_at, message_ids, and its settings (system, window, blocks, ...)."""

Conversation = dict[str, Any]
"""One conversation, with the fields of Letta's `Conversation`."""


class Store:
    """The one place that reads and writes agents, conversations and messages."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, all of it or nothing; must not be held across an await.

        Inside of another transaction it is a part of that one.
        """
        if self._db.in_transaction:
            yield
            return
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def is_empty(self) -> bool:
        """Tell whether no agent was ever stored."""
        return self._db.execute("select 1 from agents limit 1").fetchone() is None

    # Agents

    def add_agent(self, agent: Agent) -> None:
        """Store a new agent."""
        fixed = {"id", "created_at", "updated_at", "name", "message_ids"}
        settings = {name: value for name, value in agent.items() if name not in fixed}
        self._db.execute(
            "insert into agents (id, created_at, updated_at, name, message_ids, settings) values (?, ?, ?, ?, ?, ?)",
            (
                agent["id"],
                agent["created_at"],
                agent["updated_at"],
                agent["name"],
                json.dumps(agent["message_ids"]),
                json.dumps(settings),
            ),
        )

    def agent(self, agent_id: str) -> Agent:
        """Return one agent, or raise `NotFound`."""
        row = self._db.execute("select * from agents where id = ?", (agent_id,)).fetchone()
        if row is None:
            raise NotFound(f"Agent with ID {agent_id} not found")
        return _agent(row)

    def note_stop(self, agent_id: str, reason: str) -> None:
        """Record why an agent's last streamed run ended."""
        self._db.execute(
            "update agents set settings = json_set(settings, '$.last_stop_reason', ?) where id = ?", (reason, agent_id)
        )

    def insist_on_agent(self, agent_id: str) -> None:
        """Raise `NotFound`, in the words of the endpoints that only check, when there is no such agent."""
        if self._db.execute("select 1 from agents where id = ?", (agent_id,)).fetchone() is None:
            raise NotFound("Agent not found")

    def agents(self, page: Page) -> list[Agent]:
        """Return a page of agents."""
        return [_agent(row) for row in listing.agents(self._db, page)]

    def delete_agent(self, agent_id: str) -> None:
        """Delete an agent and all that belongs to it."""
        self.agent(agent_id)
        self._db.execute("delete from agents where id = ?", (agent_id,))

    # Conversations

    def add_conversation(self, conversation: Conversation) -> None:
        """Store a new conversation."""
        columns = ("id", "agent_id", "created_at", "updated_at", "last_message_at", "summary", "model")
        self._db.execute(
            "insert into conversations (id, agent_id, created_at, updated_at, last_message_at, summary, model)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            [conversation[column] for column in columns],
        )

    def conversation(self, conversation_id: str) -> Conversation:
        """Return one conversation with its in-context ids, or raise `NotFound`, also for a deleted one."""
        row = self._db.execute(
            "select * from conversations where id = ? and not is_deleted", (conversation_id,)
        ).fetchone()
        if row is None:
            raise NotFound(f"Conversation not found with id='['{conversation_id}']', is_deleted=False")
        return {**_conversation(row), "in_context_message_ids": self.in_context_ids(conversation_id)}

    def conversations(self, page: Page, agent_id: str | None) -> list[Conversation]:
        """Return a page of conversations; like the real list, without their in-context ids."""
        return [_conversation(row) for row in listing.conversations(self._db, page, agent_id)]

    def update_conversation(self, conversation_id: str, changes: dict[str, str]) -> None:
        """Change columns of a conversation: summary, model or last_message_at."""
        for column in ("summary", "model", "last_message_at"):
            if column in changes:
                self._db.execute(
                    f"update conversations set {column} = ?, updated_at = ? where id = ?",  # noqa: S608 - listed above
                    (changes[column], now(), conversation_id),
                )

    def backdate(self, conversation_id: str, first: str, last: str) -> None:
        """Let a conversation lie in the past: made at `first`, last written to at `last`."""
        self._db.execute(
            "update conversations set created_at = ?, updated_at = ?, last_message_at = ? where id = ?",
            (first, last, last, conversation_id),
        )

    def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation softly, and its messages that no other conversation shares."""
        self.conversation(conversation_id)
        with self.transaction():
            self._db.execute(
                "update conversation_messages set is_deleted = 1 where conversation_id = ?", (conversation_id,)
            )
            self._db.execute(
                "update messages set is_deleted = 1 where conversation_id = ? and id not in"
                " (select message_id from conversation_messages where conversation_id != ? and not is_deleted)",
                (conversation_id, conversation_id),
            )
            self._db.execute("update conversations set is_deleted = 1 where id = ?", (conversation_id,))

    # Messages

    def add_messages(self, messages: Sequence[Stored]) -> None:
        """Store messages; each belongs to the conversation that it names, or to its agent's default conversation."""
        self._db.executemany(
            "insert into messages (id, agent_id, conversation_id, body) values (?, ?, ?, ?)",
            [(one["id"], one["agent_id"], one["conversation_id"], json.dumps(one)) for one in messages],
        )

    def attach(self, conversation_id: str, message_ids: Sequence[str], position: int | None = None) -> None:
        """Put messages into a conversation's context, from `position` on, or after its last position."""
        if position is None:
            (last,) = self._db.execute(
                "select coalesce(max(position), -1) from conversation_messages where conversation_id = ?",
                (conversation_id,),
            ).fetchone()
            position = int(last) + 1
        self._db.executemany(
            "insert into conversation_messages (conversation_id, message_id, position) values (?, ?, ?)",
            [(conversation_id, message_id, position + place) for place, message_id in enumerate(message_ids)],
        )

    def in_context_ids(self, conversation_id: str) -> list[str]:
        """Return the ids in a conversation's context, in order; none for one that does not exist."""
        rows = self._db.execute(
            "select message_id from conversation_messages"
            " where conversation_id = ? and in_context and not is_deleted order by position, rowid",
            (conversation_id,),
        )
        return [row["message_id"] for row in rows]

    def set_context(self, agent_id: str, conversation_id: str | None, message_ids: Sequence[str]) -> None:
        """Make `message_ids` the context; whatever else was in it leaves it, as on the real server.

        Evicted messages keep their old positions, so positions repeat after a compaction.
        """
        if conversation_id is None:
            self._db.execute(
                "update agents set message_ids = ?, updated_at = ? where id = ?",
                (json.dumps(list(message_ids)), now(), agent_id),
            )
            return
        self._db.execute(
            "update conversation_messages set in_context = 0 where conversation_id = ?", (conversation_id,)
        )
        self._db.executemany(
            "update conversation_messages set in_context = 1, position = ?"
            " where conversation_id = ? and message_id = ?",
            [(position, conversation_id, message_id) for position, message_id in enumerate(message_ids)],
        )

    def messages(self, message_ids: Sequence[str]) -> list[Stored]:
        """Return messages by id, in the order asked for; unknown ids are left out."""
        marks = ",".join("?" * len(message_ids))
        rows = self._db.execute(f"select id, body from messages where id in ({marks})", list(message_ids))  # noqa: S608
        found = {row["id"]: json.loads(row["body"]) for row in rows}
        return [found[message_id] for message_id in message_ids if message_id in found]

    def message_page(self, conversation_id: str, page: MessagePage) -> list[Stored]:
        """Return a page of every message that a conversation ever had."""
        return [json.loads(row["body"]) for row in listing.conversation_messages(self._db, conversation_id, page)]

    def default_message_page(self, agent_id: str, page: MessagePage) -> list[Stored]:
        """Return a page of every message that an agent's default conversation ever had."""
        self.insist_on_agent(agent_id)
        return [json.loads(row["body"]) for row in listing.default_messages(self._db, agent_id, page)]

    def count_messages(self, agent_id: str) -> int:
        """Count all messages of an agent, in whatever conversation."""
        (count,) = self._db.execute(
            "select count(*) from messages where agent_id = ? and not is_deleted", (agent_id,)
        ).fetchone()
        return int(count)


def _agent(row: sqlite3.Row) -> Agent:
    settings = json.loads(row["settings"])
    ids = json.loads(row["message_ids"])
    fixed = {name: row[name] for name in ("id", "created_at", "updated_at", "name")}
    return {**settings, **fixed, "message_ids": ids}


def _conversation(row: sqlite3.Row) -> Conversation:
    return {
        "created_by_id": USER_ID,
        "last_updated_by_id": USER_ID,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "id": row["id"],
        "agent_id": row["agent_id"],
        "summary": row["summary"],
        "in_context_message_ids": [],
        "isolated_block_ids": [],
        "model": row["model"],
        "model_settings": None,
        "last_message_at": shown(row["last_message_at"]),
    }


def conversation_key(agent_id: str, conversation_id: str | None) -> str:
    """Name a conversation for the log of compactions: its id, or `default:<agent id>`."""
    return conversation_id or f"{DEFAULT_CONVERSATION}:{agent_id}"
