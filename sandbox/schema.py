"""The tables, and the opening of the SQLite file that holds them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

BUSY_MILLISECONDS = 5_000
"""How long to wait for another process that has the same file open."""

_TABLES = """
create table if not exists agents (
    id text primary key,
    created_at text not null,
    updated_at text not null,
    name text not null,
    message_ids text not null,
    settings text not null
);
create table if not exists conversations (
    id text primary key,
    agent_id text not null references agents (id) on delete cascade,
    created_at text not null,
    updated_at text not null,
    last_message_at text,
    summary text,
    model text,
    is_deleted integer not null default 0
);
create index if not exists conversations_by_activity on conversations (last_message_at, id);
create table if not exists messages (
    sequence integer primary key autoincrement,
    id text not null unique,
    agent_id text not null references agents (id) on delete cascade,
    conversation_id text,
    body text not null,
    is_deleted integer not null default 0
);
create index if not exists messages_by_agent on messages (agent_id, conversation_id, sequence);
create table if not exists conversation_messages (
    conversation_id text not null references conversations (id) on delete cascade,
    message_id text not null,
    position integer not null,
    in_context integer not null default 1,
    is_deleted integer not null default 0,
    primary key (conversation_id, message_id)
);
create index if not exists conversation_messages_by_position on conversation_messages (conversation_id, position);
create table if not exists runs (
    id text primary key,
    agent_id text not null references agents (id) on delete cascade,
    conversation_id text,
    status text not null,
    background integer not null,
    created_at text not null,
    completed_at text,
    body text not null
);
create index if not exists runs_by_conversation on runs (conversation_id, created_at);
create table if not exists steps (
    id text primary key,
    agent_id text not null references agents (id) on delete cascade,
    run_id text not null,
    body text not null
);
create table if not exists compactions (
    number integer primary key autoincrement,
    conversation text not null,
    body text not null
);
"""


def connect(database: Path) -> sqlite3.Connection:
    """Open the file, and make the tables where they are missing.

    The connection is for one thread: the server answers on one event loop, and what it writes, it writes without
    awaiting anything in between. That is the writer's lock.
    """
    connection = sqlite3.connect(database, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute(f"pragma busy_timeout = {BUSY_MILLISECONDS}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    connection.executescript(_TABLES)
    return connection
