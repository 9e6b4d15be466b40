from __future__ import annotations

from typing import Any

import pytest

USER = {"role": "user", "content": "hello"}


def walk(box: Any, agent: str, limit: int, **params: Any) -> list[str]:
    """Page through an agent's conversations as a client would: until a page is short."""
    found: list[str] = []
    after: dict[str, str] = {}
    while len(found) < 100:
        asked = {"agent_id": agent, "limit": limit, **params, **after}
        page = [row["id"] for row in box.http.get("/v1/conversations/", params=asked).raise_for_status().json()]
        found += page
        if len(page) < limit:
            break
        after = {"after": page[-1]}
    return found


def used_and_unused(box: Any, used: int, unused: int) -> str:
    agent = str(box.agent())
    for number in range(used + unused):
        conversation = box.conversation(agent)
        if number < used:
            box.send(conversation, USER)
    return agent


@pytest.mark.parametrize("order_by", ["created_at", "last_message_at", "last_run_completion"])
@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_newest_first_every_page_size_finds_every_conversation_once(box: Any, order_by: str, limit: int) -> None:
    agent = used_and_unused(box, used=4, unused=3)
    whole = walk(box, agent, 100, order_by=order_by)
    assert len(set(whole)) == 7
    assert walk(box, agent, limit, order_by=order_by) == whole


def test_conversations_that_were_never_used_come_last(box: Any) -> None:
    agent = used_and_unused(box, used=2, unused=2)
    rows = box.http.get("/v1/conversations/", params={"agent_id": agent, "order_by": "last_message_at"}).json()
    times = [row["last_message_at"] for row in rows]
    assert times[:2] == sorted(times[:2], reverse=True)
    assert times[2:] == [None, None]


def test_conversations_with_the_same_time_are_all_found(box: Any) -> None:
    agent = used_and_unused(box, used=0, unused=5)
    for conversation in walk(box, agent, 50):
        same = {"last_message_at": "2026-01-01T00:00:00Z"}
        assert box.http.patch(f"/v1/conversations/{conversation}", json=same).status_code == 200
    assert len(set(walk(box, agent, 2, order_by="last_message_at"))) == 5


def test_oldest_first_by_last_message_loses_the_unused_ones_as_the_real_server_does(box: Any) -> None:
    agent = used_and_unused(box, used=3, unused=2)
    assert len(set(walk(box, agent, 1, order_by="last_message_at", order="asc"))) == 3


def test_the_list_leaves_the_context_empty_and_retrieving_fills_it(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent, pairs=2)
    (row,) = box.http.get("/v1/conversations/", params={"agent_id": agent}).json()
    assert row["in_context_message_ids"] == []
    assert len(box.context(conversation)) == 5


def test_an_unknown_cursor_is_404_but_not_by_run_completion(box: Any) -> None:
    agent = used_and_unused(box, used=1, unused=0)
    for order_by in ("created_at", "last_message_at"):
        asked = {"agent_id": agent, "after": "garbage", "order_by": order_by}
        assert box.http.get("/v1/conversations/", params=asked).status_code == 404
    asked = {"agent_id": agent, "after": "garbage", "order_by": "last_run_completion"}
    assert len(box.http.get("/v1/conversations/", params=asked).json()) == 1


def test_a_cursor_that_was_deleted_meanwhile_still_works(box: Any) -> None:
    agent = used_and_unused(box, used=3, unused=0)
    whole = walk(box, agent, 50, order_by="last_message_at")
    box.http.delete(f"/v1/conversations/{whole[0]}").raise_for_status()
    asked = {"agent_id": agent, "after": whole[0], "order_by": "last_message_at"}
    assert [row["id"] for row in box.http.get("/v1/conversations/", params=asked).json()] == whole[1:]


def test_a_limit_of_nothing_is_an_empty_page_and_below_nothing_an_error(box: Any) -> None:
    box.conversation()
    assert box.http.get("/v1/conversations/", params={"limit": 0}).json() == []
    answer = box.http.get("/v1/conversations/", params={"limit": -1})
    assert (answer.status_code, answer.json()) == (500, {"detail": "A database error occurred."})


def test_agents_are_paged_and_an_unknown_cursor_is_ignored(box: Any) -> None:
    made = [box.agent() for _ in range(3)]
    first = box.http.get("/v1/agents/", params={"limit": 2}).json()
    assert [one["id"] for one in first] == [made[2], made[1]]
    second = box.http.get("/v1/agents/", params={"limit": 1, "after": made[1]}).json()
    assert [one["id"] for one in second] == [made[0]]
    ignored = box.http.get("/v1/agents/", params={"limit": 2, "after": "garbage"}).json()
    assert [one["id"] for one in ignored] == [made[2], made[1]]


def test_messages_come_newest_first_and_are_paged_backwards_with_before(box: Any) -> None:
    conversation = box.conversation(pairs=5)
    whole = [one["id"] for one in box.listed(conversation)]
    assert whole == box.context(conversation)[::-1]
    assert [one["id"] for one in box.listed(conversation, limit=4)] == whole[:4]
    assert [one["id"] for one in box.listed(conversation, limit=4, before=whole[3])] == whole[4:8]


def test_after_means_later_whatever_the_order(box: Any) -> None:
    conversation = box.conversation(pairs=3)
    ids = box.context(conversation)
    assert [one["id"] for one in box.listed(conversation, after=ids[4], order="asc")] == ids[5:]
    assert [one["id"] for one in box.listed(conversation, after=ids[4], order="desc")] == ids[5:][::-1]
    assert len(box.listed(conversation, after="garbage")) == 7


def test_pages_of_the_default_conversation_always_go_forward(box: Any) -> None:
    agent = box.agent()
    for _ in range(3):
        box.send("default", USER, agent_id=agent)
    ids = box.http.get(f"/v1/agents/{agent}").json()["message_ids"]
    assert [one["id"] for one in box.listed("default", agent_id=agent, limit=3)] == ids[-3:]
    assert [one["id"] for one in box.listed("default", agent_id=agent, limit=3, order="asc")] == ids[:3]
    assert [one["id"] for one in box.listed("default", agent_id=agent, limit=2, before=ids[-3])] == ids[-5:-3]
    unknown = box.http.get("/v1/conversations/default/messages", params={"agent_id": agent, "after": "garbage"})
    assert unknown.status_code == 404


def test_a_deleted_conversation_is_gone_except_where_nobody_looks(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent, pairs=2)
    deleted = box.http.delete(f"/v1/conversations/{conversation}")
    assert (deleted.status_code, deleted.json()) == (200, None)
    assert box.http.get(f"/v1/conversations/{conversation}").status_code == 404
    assert box.compact(conversation).status_code == 404
    assert box.http.post(f"/v1/conversations/{conversation}/fork").status_code == 404
    assert box.http.delete(f"/v1/conversations/{conversation}").status_code == 404
    assert box.listed(conversation) == []
    assert box.overview(agent, conversation)["num_messages"] == 1
    assert box.http.get("/v1/conversations/", params={"agent_id": agent}).json() == []


def test_with_its_agent_everything_of_an_agent_is_deleted(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent, pairs=1)
    box.http.delete(f"/v1/agents/{agent}").raise_for_status()
    assert box.http.get(f"/v1/agents/{agent}").status_code == 404
    assert box.http.get(f"/v1/conversations/{conversation}").status_code == 404
