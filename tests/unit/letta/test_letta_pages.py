"""Walks along cursors, on servers of every temper."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from worker.letta.errors import ServerError
from worker.letta.models import Unreadable

pytestmark = pytest.mark.anyio


class Shelf:
    """A list endpoint over `rows`; a cursor that it does not know starts it from the beginning, as 0.16.8 does."""

    def __init__(self, rows: list[Any], cap: int = 1000, *, by_time: bool = True) -> None:
        self.rows = rows
        self.cap = cap
        self.by_time = by_time
        self.calls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        assert self.calls < 100, "the walk does not end"
        query = request.url.params
        rows = list(self.rows)
        newest_first = query.get("order") == "desc" and "messages" in request.url.path
        if newest_first and not self.by_time:
            rows.reverse()
        rows = self._after(rows, query.get("after"))
        rows = self._after(rows[::-1], query.get("before"))[::-1]
        if newest_first and self.by_time:
            rows.reverse()
        return httpx.Response(200, json=rows[: min(int(query["limit"]), self.cap)])

    @staticmethod
    def _after(rows: list[Any], cursor: str | None) -> list[Any]:
        positions = [at for at, row in enumerate(rows) if isinstance(row, dict) and row.get("id") == cursor]
        return rows[positions[-1] + 1 :] if cursor and positions else rows


def conversations(count: int) -> list[Any]:
    return [{"id": f"conv-{number}", "agent_id": "agent-1"} for number in range(count)]


async def ids(pages: Any) -> list[str | None]:
    return [row.id async for page in pages for row in page]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95])
async def test_a_walk_yields_every_row_once_and_in_order(server: Any, count: int) -> None:
    server.answers_by(Shelf(conversations(count)))
    assert await ids(server.letta.conversation_pages(limit=10)) == [f"conv-{number}" for number in range(count)]


async def test_a_server_that_caps_the_limit_is_walked_to_its_end(server: Any) -> None:
    server.answers_by(Shelf(conversations(95), cap=7))
    assert len(await ids(server.letta.conversation_pages(limit=50))) == 95


async def test_a_server_that_ignores_the_cursor_does_not_send_the_walk_in_circles(server: Any) -> None:
    shelf = Shelf(conversations(10))
    server.answers_by(lambda request: shelf(httpx.Request("GET", request.url.copy_remove_param("after"))))
    assert len(await ids(server.letta.conversation_pages(limit=5))) == 5
    assert shelf.calls <= 1 + 3


async def test_a_cursor_that_was_deleted_meanwhile_does_not_cut_the_walk_short(server: Any) -> None:
    shelf = Shelf(conversations(20))
    server.answers_by(shelf)
    found: list[str | None] = []
    async for page in server.letta.conversation_pages(limit=5):
        found += [row.id for row in page]
        shelf.rows = [row for row in shelf.rows if row["id"] != found[-1]]
    assert found == [f"conv-{number}" for number in range(20)]


async def test_a_page_with_rows_that_cannot_be_read_is_walked_past(server: Any) -> None:
    rows: list[Any] = [*conversations(4), "garbage", {"id": "conv-broken"}, {"id": "conv-last", "agent_id": "agent-1"}]
    server.answers_by(Shelf(rows))
    pages = [page async for page in server.letta.conversation_pages(limit=3)]
    found = [row for page in pages for row in page]
    assert [row.id for row in found] == ["conv-0", "conv-1", "conv-2", "conv-3", None, "conv-broken", "conv-last"]
    assert sum(isinstance(row, Unreadable) for row in found) == 2


async def test_a_list_of_rows_without_ids_is_yielded_once_and_ends(server: Any) -> None:
    shelf = Shelf(["a", "b"])
    server.answers_by(shelf)
    assert await ids(server.letta.agent_pages(limit=2)) == [None, None]
    assert shelf.calls == 1


async def test_agents_are_walked_like_conversations(server: Any) -> None:
    server.answers_by(Shelf([{"id": f"agent-{number}"} for number in range(7)]))
    assert await ids(server.letta.agent_pages(limit=3)) == [f"agent-{number}" for number in range(7)]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("by_time", [True, False], ids=["cursors follow time", "cursors follow the order"])
async def test_messages_are_walked_in_either_sense_of_the_cursors(server: Any, order: str, *, by_time: bool) -> None:
    server.answers_by(Shelf([{"id": f"message-{number}"} for number in range(12)], by_time=by_time))
    found = await ids(server.letta.message_pages("conv-1", order=order, limit=5))
    in_time = [f"message-{number}" for number in range(12)]
    assert found == (in_time if order == "asc" else in_time[::-1])


async def test_messages_that_share_an_id_are_all_yielded(server: Any) -> None:
    rows = [{"id": f"message-{number // 2}", "content": str(number)} for number in range(8)]
    server.answers_by(Shelf(rows))
    found = await ids(server.letta.message_pages("conv-1", limit=4))
    assert found == [f"message-{number // 2}" for number in range(8)]


async def test_an_error_on_a_later_page_reaches_the_caller_after_the_earlier_ones(server: Any) -> None:
    server.answers_with(conversations(3))
    server.answers_with({"detail": "x"}, status=500)
    found: list[str | None] = []

    async def walk() -> None:
        async for page in server.letta.conversation_pages(limit=3):
            found.extend(row.id for row in page)

    with pytest.raises(ServerError):
        await walk()
    assert found == ["conv-0", "conv-1", "conv-2"]
