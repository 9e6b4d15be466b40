from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

UUID = "123e4567-e89b-42d3-8456-426614174000"


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", f"/v1/conversations/conv-{UUID}", 404, "Conversation not found"),
        ("POST", f"/v1/conversations/conv-{UUID}/compact", 404, "Conversation not found"),
        ("POST", "/v1/conversations/default/compact", 404, "Conversation not found"),
        ("GET", f"/v1/agents/agent-{UUID}", 404, f"Agent with ID agent-{UUID} not found"),
        ("POST", f"/v1/conversations/?agent_id=agent-{UUID}", 404, "Agent not found"),
        ("GET", f"/v1/conversations/default/messages?agent_id=agent-{UUID}", 404, "Agent not found"),
        ("GET", f"/v1/steps/step-{UUID}", 404, "Step not found"),
        ("GET", f"/v1/runs/run-{UUID}", 404, "Run not found"),
        ("GET", "/v1/runs/garbage", 400, "INVALID_ARGUMENT: Invalid run ID format: garbage"),
        ("GET", "/v1/runs/?statuses=nope", 400, "'nope' is not a valid RunStatus"),
        ("GET", "/v1/steps/", 400, "Argument order does not match type"),
        ("GET", "/v1/runs/?limit=0", 422, "greater_than_equal"),
        ("GET", "/v1/conversations/garbage", 422, "string_too_short"),
        ("GET", f"/v1/conversations/conv_{UUID}", 422, "string_pattern_mismatch"),
        ("GET", "/v1/agents/garbage", 422, "String should match pattern 'agent-{uuid4}'"),
        ("GET", "/v1/conversations/?order=sideways", 422, "literal_error"),
        ("GET", "/v1/nonsense", 404, "Not Found"),
        ("PUT", "/v1/health/", 405, "Method Not Allowed"),
    ],
)
def test_what_is_wrong_is_answered_as_the_real_server_answers(
    box: Any, method: str, path: str, status: int, detail: str
) -> None:
    answer = box.http.request(method, path)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text


def test_an_agent_of_the_wrong_format_in_a_body_is_400(box: Any) -> None:
    answer = box.compact("default", agent="garbage", mode="all")
    assert answer.status_code == 400
    assert "Invalid agent ID format" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"messages": [], "streaming": False}, 422),
        ({"streaming": False}, 422),
        ({"messages": [{"role": "user", "content": "x"}], "input": "x", "streaming": False}, 422),
        ({"messages": [{"role": "nobody", "content": "x"}], "streaming": False}, 422),
        ({"messages": [{"content": "x"}], "streaming": False}, 422),
        ({"messages": [{"role": "user", "content": ""}], "streaming": False}, 400),
        ({"messages": [{"type": "approval", "approve": True}], "streaming": False}, 400),
        ({"input": "x", "streaming": False}, 200),
    ],
)
def test_a_send_that_makes_no_sense_is_refused_and_stores_nothing(box: Any, body: dict[str, Any], status: int) -> None:
    conversation = box.conversation()
    assert box.http.post(f"/v1/conversations/{conversation}/messages", json=body).status_code == status
    assert len(box.context(conversation)) == (3 if status == 200 else 1)


def test_a_body_that_is_no_json_is_422(box: Any) -> None:
    answer = box.http.post(f"/v1/conversations/{box.conversation()}/compact", content="{")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/v1/conversations", "/v1/conversations/"),
        ("/v1/agents", "/v1/agents/"),
        ("/v1/health", "/v1/health/"),
        (f"/v1/conversations/conv-{UUID}/", f"/v1/conversations/conv-{UUID}"),
    ],
)
def test_a_slash_too_few_or_too_many_is_redirected(box: Any, asked: str, location: str) -> None:
    answer = box.http.get(asked)
    assert (answer.status_code, answer.headers["location"]) == (307, box.base_url + location)


def test_with_a_key_only_its_owner_is_let_in_and_everybody_may_ask_for_health(start: Callable[..., Any]) -> None:
    box = start("--api-key", "right-key")
    assert box.http.get("/v1/health/").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong-key"}, {"Authorization": "right-key"}):
        answer = box.http.get("/v1/conversations/", headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
    assert box.http.get("/v1/conversations/", headers={"Authorization": "Bearer right-key"}).status_code == 200
    assert box.http.get("/sandbox/requests").status_code == 200


def test_updating_changes_what_is_named_and_nothing_else(box: Any) -> None:
    conversation = box.conversation()
    box.http.patch(f"/v1/conversations/{conversation}", json={"summary": "About a log."}).raise_for_status()
    moved = box.http.patch(f"/v1/conversations/{conversation}", json={"last_message_at": "2026-10-01T02:00:00+02:00"})
    assert moved.json()["last_message_at"] == "2026-10-01T00:00:00Z"
    shown = box.http.get(f"/v1/conversations/{conversation}").json()
    assert (shown["summary"], shown["last_message_at"]) == ("About a log.", "2026-10-01T00:00:00Z")
