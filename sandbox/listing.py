"""Pages of lists, with the orders and cursors of the real server, its oddities included."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.errors import DatabaseRefused, NotFound

Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Page:
    """A page of conversations or agents: at most `limit` rows after the row `after`, in `order` of `order_by`."""

    limit: int | None
    after: str | None
    order: Order
    order_by: str
    before: str | None = None


@dataclass(frozen=True)
class MessagePage:
    """A page of messages.

    `after` and `before` mean later and earlier in the conversation, whatever the order: going back from the newest
    message, the cursor is `before`.
    """

    limit: int | None
    before: str | None
    after: str | None
    order: Order


def conversations(db: sqlite3.Connection, page: Page, agent_id: str | None) -> list[sqlite3.Row]:
    """Select conversations; where times are equal the id decides, and those without the time come last."""
    where = ["not c.is_deleted"]
    values: list[Any] = []
    if agent_id is not None:
        where.append("c.agent_id = ?")
        values.append(agent_id)
    source = "conversations c"
    if page.order_by == "last_run_completion":
        source += (
            " left join (select conversation_id, max(completed_at) as last_run_completion from runs"
            " where conversation_id is not null group by conversation_id) r on r.conversation_id = c.id"
        )
    column = "r.last_run_completion" if page.order_by == "last_run_completion" else f"c.{page.order_by}"
    if page.after:
        cursor = db.execute(
            f"select c.id, {column} as moment from {source} where c.id = ?",  # noqa: S608
            (page.after,),
        ).fetchone()
        if cursor is None:
            _unknown_cursor(page)
        elif page.order_by == "created_at":
            # Rows that share the cursor's time are lost here, on the real server too.
            where.append(f"{column} {_beyond(page.order)} ?")
            values.append(cursor["moment"])
        else:
            clause, more = _after(column, page.order, cursor["moment"], cursor["id"])
            where.append(clause)
            values += more
    order = f"{column} {page.order} nulls last, c.id {page.order}"
    return _select(db, source, where, values, order=order, limit=page.limit, columns="c.*")


def agents(db: sqlite3.Connection, page: Page) -> list[sqlite3.Row]:
    """Select agents; an unknown cursor is ignored, and a limit of 0 means no limit."""
    where = ["1"]
    values: list[Any] = []
    column = page.order_by if page.order_by in {"created_at", "updated_at"} else "created_at"
    for cursor_id, direction in ((page.after, _beyond(page.order)), (page.before, _beyond(_other(page.order)))):
        cursor = db.execute(f"select id, {column} as moment from agents where id = ?", (cursor_id,)).fetchone()  # noqa: S608
        if cursor is not None:
            where.append(f"({column} {direction} ? or ({column} = ? and id {direction} ?))")
            values += [cursor["moment"], cursor["moment"], cursor["id"]]
    return _select(
        db,
        "agents",
        where,
        values,
        order=f"{column} {page.order}, id {page.order}",
        limit=page.limit or None,
        columns="*",
    )


def conversation_messages(db: sqlite3.Connection, conversation_id: str, page: MessagePage) -> list[sqlite3.Row]:
    """Select the messages of a conversation by their positions; an unknown cursor is ignored."""
    where = ["cm.conversation_id = ?", "not cm.is_deleted"]
    values: list[Any] = [conversation_id]
    for cursor_id, direction in ((page.before, "<"), (page.after, ">")):
        cursor = db.execute(
            "select position from conversation_messages where conversation_id = ? and message_id = ?",
            (conversation_id, cursor_id),
        ).fetchone()
        if cursor is not None:
            where.append(f"cm.position {direction} ?")
            values.append(cursor["position"])
    source = "conversation_messages cm join messages m on m.id = cm.message_id"
    order = f"cm.position {page.order}, cm.rowid {page.order}"
    return _select(db, source, where, values, order=order, limit=page.limit, columns="m.body")


def default_messages(db: sqlite3.Connection, agent_id: str, page: MessagePage) -> list[sqlite3.Row]:
    """Select the messages of an agent's default conversation; an unknown cursor is not found.

    The order only decides which end of the conversation a page is taken from: the rows of a page always go forward.
    """
    where = ["agent_id = ?", "conversation_id is null", "not is_deleted"]
    where.append("id not in (select message_id from conversation_messages)")
    values: list[Any] = [agent_id]
    for cursor_id, direction in ((page.before, "<"), (page.after, ">")):
        if not cursor_id:
            continue
        cursor = db.execute("select sequence from messages where id = ? and not is_deleted", (cursor_id,)).fetchone()
        if cursor is None:
            raise NotFound(f"No message found with id '{cursor_id}' for agent '{agent_id}'.")
        where.append(f"sequence {direction} ?")
        values.append(cursor["sequence"])
    rows = _select(db, "messages", where, values, order=f"sequence {page.order}", limit=page.limit, columns="body")
    return rows[::-1] if page.order == "desc" else rows


def _select(
    db: sqlite3.Connection,
    source: str,
    where: list[str],
    values: list[Any],
    *,
    order: str,
    limit: int | None,
    columns: str,
) -> list[sqlite3.Row]:
    if limit is not None and limit < 0:
        raise DatabaseRefused("LIMIT must not be negative")
    # Every piece of the statement is a literal of this module; what a caller sent is bound.
    statement = f"select {columns} from {source} where {' and '.join(where)} order by {order}"  # noqa: S608
    if limit is not None:
        statement += " limit ?"
        values = [*values, limit]
    return db.execute(statement, values).fetchall()


def _unknown_cursor(page: Page) -> None:
    if page.order_by != "last_run_completion":
        raise NotFound(f"Conversation not found with id='['{page.after}']'")


def _after(column: str, order: Order, moment: str | None, row_id: str) -> tuple[str, list[Any]]:
    beyond = _beyond(order)
    if moment is None:
        if order == "asc":
            # The real server walks in a circle here: behind the rows without a time it starts again.
            return f"(({column} is null and c.id > ?) or {column} is not null)", [row_id]
        return f"({column} is null and c.id < ?)", [row_id]
    same = f"({column} = ? and c.id {beyond} ?)"
    if order == "asc":
        return f"({column} > ? or {same})", [moment, moment, row_id]
    return f"({column} is null or {column} < ? or {same})", [moment, moment, row_id]


def _beyond(order: Order) -> str:
    return ">" if order == "asc" else "<"


def _other(order: Order) -> Order:
    return "desc" if order == "asc" else "asc"
