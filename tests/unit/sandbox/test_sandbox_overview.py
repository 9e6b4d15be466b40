from __future__ import annotations

import json
from typing import Any

from sandbox import tokens
from sandbox.messages import for_list, message, tool_call, tool_result

WHEN = "2026-11-23T04:28:29.000000Z"


def test_the_overview_adds_up(box: Any) -> None:
    agent = box.agent(memory_blocks=[{"label": "human", "value": "Likes short answers."}])
    overview = box.overview(agent, box.conversation(agent, pairs=3))
    parts = [value for name, value in overview.items() if name.startswith("num_tokens_")]
    assert overview["context_window_size_current"] == sum(parts)
    assert overview["context_window_size_max"] == 16_000
    assert overview["num_messages"] == len(overview["messages"]) == 7
    assert "Likes short answers." in overview["core_memory"]
    assert overview["num_tokens_core_memory"] == -(-len(overview["core_memory"]) // 4)


def test_its_messages_are_the_context_but_the_system_message_is_the_agents(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent, pairs=3)
    ids = [one["id"] for one in box.overview(agent, conversation)["messages"]]
    assert ids[1:] == box.context(conversation)[1:]
    assert ids[0] == box.http.get(f"/v1/agents/{agent}").json()["message_ids"][0]


def test_the_tokens_of_the_messages_are_their_ascii_json_over_four(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent)
    box.send(conversation, {"role": "user", "content": 'Grüße aus Zürich, "bitte"\n你好'})
    shown = [one for one in box.listed(conversation, order="asc") if one["message_type"] != "system_message"]
    roles = {"user_message": "user", "assistant_message": "assistant"}
    sent = [{"content": one["content"], "role": roles[one["message_type"]]} for one in shown]
    assert box.overview(agent, conversation)["num_tokens_messages"] == -(-len(json.dumps(sent)) // 4)


def test_the_default_conversation_is_the_one_without_an_id(box: Any) -> None:
    agent = box.agent()
    box.send("default", {"role": "user", "content": "hello"}, agent_id=agent)
    assert box.overview(agent)["num_messages"] == 3
    assert box.overview(agent, "default")["num_messages"] == 1


def test_an_overview_does_not_tell_that_a_conversation_does_not_exist(box: Any) -> None:
    agent = box.agent()
    assert box.overview(agent, "garbage")["num_messages"] == 1
    unknown = "agent-123e4567-e89b-42d3-8456-426614174000"
    assert box.http.get(f"/v1/agents/{unknown}/context").status_code == 404


def test_one_message_with_text_and_a_tool_call_is_two_items_with_one_id() -> None:
    identifier = "message-123e4567-e89b-42d3-8456-426614174005"
    call = tool_call("call-1", "read_log", {"service": "web"})
    said = message(identifier, "assistant", "Let me look.", tool_calls=[call])
    text, called = for_list([said])
    assert (text["message_type"], called["message_type"]) == ("assistant_message", "tool_call_message")
    assert text["id"] == called["id"] == identifier
    assert (text["otid"][-2:], called["otid"][-2:]) == ("00", "01")
    assert called["tool_calls"] == [{"name": "read_log", "arguments": '{"service": "web"}', "tool_call_id": "call-1"}]


def test_what_a_tool_returned_is_shown_unpacked_and_counted_packed() -> None:
    result = tool_result("message-123e4567-e89b-42d3-8456-426614174005", "call-1", "read_log", "12 lines", WHEN)
    (item,) = for_list([result])
    assert (item["message_type"], item["tool_return"], item["status"]) == ("tool_return_message", "12 lines", "success")
    response = result["tool_returns"][0]["func_response"]
    sent = [{"content": response, "role": "tool", "tool_call_id": "call-1"}]
    assert tokens.of_messages([result]) == -(-len(json.dumps(sent)) // 4)


def test_no_messages_are_no_tokens() -> None:
    assert tokens.of_messages([]) == 0
