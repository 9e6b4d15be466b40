from __future__ import annotations

import json
from typing import Any

import pytest

from worker.letta.messages import ContextMessage, ContextOverview, LettaResponse, Message, json_size
from worker.letta.models import Unreadable


def message(**fields: Any) -> Message:
    return Message.model_validate({"id": "message-1", "date": "2026-11-23T04:11:15+00:00"} | fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"message_type": "user_message", "content": "hello"}, "hello"),
        (
            {
                "message_type": "assistant_message",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            "a\nb",
        ),
        (
            {
                "message_type": "user_message",
                "content": [{"type": "image", "source": {}}, {"type": "text", "text": "b"}],
            },
            "b",
        ),
        ({"message_type": "reasoning_message", "reasoning": "hm"}, "hm"),
        ({"message_type": "summary_message", "summary": "It began."}, "It began."),
        ({"message_type": "tool_return_message", "tool_return": "42", "tool_returns": None}, "42"),
        ({"message_type": "tool_return_message", "tool_return": "42", "tool_returns": [{"tool_return": "42"}]}, "42"),
        ({"message_type": "tool_call_message", "tool_call": {"name": "f", "arguments": "{}"}}, ""),
        ({"message_type": "event_message", "event_data": {"a": 1}}, ""),
        ({"message_type": "a_type_of_tomorrow", "content": "still read"}, "still read"),
        ({}, ""),
    ],
)
def test_every_type_of_message_is_read_and_its_text_found(fields: dict[str, Any], text: str) -> None:
    assert message(**fields).text() == text


def test_a_message_without_a_type_is_of_an_unknown_one() -> None:
    assert message(content="x").message_type == "unknown"


def test_a_messages_size_is_that_of_what_it_says_and_not_of_its_envelope() -> None:
    short = message(message_type="user_message", content="hello", otid="x" * 500, run_id="run-1", name=None)
    assert short.size == len('"hello"')
    assert message(content="ä").size == len(json.dumps("ä"))


def test_what_is_sent_twice_is_counted_once() -> None:
    call = {"name": "f", "arguments": "{}", "tool_call_id": "c"}
    assert message(tool_call=call, tool_calls=[call]).size == json_size([call])
    assert message(tool_call=call, tool_calls=None).size == json_size(call)


def test_what_a_message_says_does_not_show_in_its_repr() -> None:
    assert "secret" not in repr(message(content="secret"))


def in_context(**fields: Any) -> ContextMessage:
    return ContextMessage.model_validate({"id": "message-1", "role": "user"} | fields)


def test_a_context_message_weighs_its_text_its_calls_and_its_returns() -> None:
    text = [{"type": "text", "text": "hello", "signature": None}]
    calls = [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]
    returns = [{"status": "success", "func_response": "a longer text"}]
    assert in_context(content=text).size == len('"hello"')
    assert in_context(content=text, tool_calls=calls).size == len('"hello"') + json_size(calls)
    assert in_context(content=text, tool_returns=returns).size == json_size(returns)
    assert in_context(content=None, tool_calls=None, tool_returns=[]).size <= len('""')
    assert in_context(content="hello").size == len('"hello"')


def test_an_images_bytes_do_not_count() -> None:
    image = {"type": "image", "source": {"data": "A" * 100_000}}
    assert in_context(content=[image, {"type": "text", "text": "hello"}]).size == len('"hello"')


@pytest.mark.parametrize(("calls", "has"), [(None, False), ([], False), ([{"id": "c"}], True)])
def test_a_context_message_knows_whether_it_calls_tools(calls: Any, *, has: bool) -> None:
    assert in_context(role="assistant", tool_calls=calls).has_tool_calls is has


OVERVIEW = {
    "context_window_size_max": 16000,
    "context_window_size_current": 4498,
    "num_messages": 15,
    "num_archival_memory": 0,
    "num_tokens_system": 427,
    "num_tokens_core_memory": 175,
    "num_tokens_external_memory_summary": 65,
    "num_tokens_messages": 3831,
    "system_prompt": "You are.",
    "functions_definitions": None,
}


def test_an_overview_is_read_with_its_usage_and_what_no_compaction_frees() -> None:
    overview = ContextOverview.model_validate(OVERVIEW)
    assert overview.usage == 4498 / 16000
    assert overview.fixed_tokens == 427 + 175 + 65
    assert overview.messages == []


def test_an_unreadable_message_in_an_overview_is_counted_and_costs_no_other() -> None:
    rows = [{"id": "message-1", "role": "system"}, {"id": "message-2"}, 3, {"id": "message-4", "role": "a_new_role"}]
    overview = ContextOverview.model_validate(OVERVIEW | {"messages": rows})
    assert [row.id for row in overview.messages] == ["message-1", "message-4"]
    assert overview.unreadable_messages == 2


def test_an_overview_without_a_window_has_no_usage() -> None:
    assert ContextOverview.model_validate(OVERVIEW | {"context_window_size_max": 0}).usage is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3}])
def test_a_reply_is_read_with_whatever_usage_it_has(usage: Any) -> None:
    reply = LettaResponse.model_validate({"messages": [], "stop_reason": {"stop_reason": "end_turn"}, "usage": usage})
    assert reply.stop_reason == "end_turn"
    assert reply.usage.prompt_tokens == (usage or {}).get("prompt_tokens")


def test_an_unreadable_message_in_a_reply_costs_no_other() -> None:
    reply = LettaResponse.model_validate({"messages": [{"message_type": "x"}, {"id": "message-1", "content": "hi"}]})
    unreadable, readable = reply.messages
    assert unreadable == Unreadable(None, "id: is required")
    assert isinstance(readable, Message)
    assert readable.text() == "hi"
