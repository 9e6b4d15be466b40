"""Faults as a client meets them on the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("kind", "status", "takes_effect"),
    [
        ("500", 500, False),
        ("502", 502, False),
        ("503", 503, False),
        ("429", 429, False),
        ("401", 401, False),
        ("html", 200, False),
        ("llm_error", 500, False),
        ("llm_rate_limit", 429, False),
        ("llm_authentication", 401, False),
        ("llm_bad_request", 400, False),
        ("502-after", 502, True),
        ("500-after", 500, True),
        ("html-after", 200, True),
    ],
)
def test_a_fault_answers_what_it_was_told_to_with_or_without_effect(
    box: Any,
    kind: str,
    status: int,
    takes_effect: bool,  # noqa: FBT001 - a column of the table
) -> None:
    conversation = box.conversation(pairs=10)
    box.faults({"endpoint": "compact", "kind": kind, "times": 1})
    answer = box.compact(conversation)
    assert answer.status_code == status
    assert (len(box.context(conversation)) < 21) is takes_effect
    assert ("text/html" in answer.headers["content-type"]) is (kind.startswith(("html", "502")))
    assert ("retry-after" in answer.headers) is (kind in {"503", "429"})
    assert box.http.get("/v1/conversations/").status_code == 200


def test_a_failure_of_the_servers_model_has_a_body_of_its_own(box: Any) -> None:
    box.faults({"endpoint": "compact", "kind": "llm_authentication", "times": 1})
    assert box.compact(box.conversation(pairs=10)).json()["error"]["type"] == "llm_authentication"


def test_the_time_to_wait_can_be_chosen(box: Any) -> None:
    box.faults({"endpoint": "runs", "kind": "429", "retry_after": 7})
    assert box.http.get("/v1/runs/").headers["retry-after"] == "7"


@pytest.mark.parametrize(("kind", "takes_effect"), [("reset", False), ("reset-after", True)])
def test_a_reset_closes_the_connection_without_a_byte(box: Any, kind: str, takes_effect: bool) -> None:  # noqa: FBT001
    conversation = box.conversation(pairs=10)
    box.faults({"endpoint": "compact", "kind": kind, "times": 1})
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        box.compact(conversation)
    assert (len(box.context(conversation)) < 21) is takes_effect
    assert box.http.get("/sandbox/compactions").json().get(conversation, {"effective": 0})["effective"] == takes_effect


def test_an_answer_can_stop_in_its_middle_with_and_without_its_connection(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    box.faults({"endpoint": "compact", "kind": "reset-mid", "times": 1})
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        box.compact(conversation)
    box.faults({"endpoint": "compact", "kind": "truncated", "times": 1})
    answer = box.compact(conversation)
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert box.log(conversation)["effective"] == 2


def test_a_truncated_stream_ends_without_saying_that_it_is_done(box: Any) -> None:
    conversation = box.conversation()
    box.faults({"endpoint": "send", "kind": "truncated", "times": 1})
    answer = box.http.post(f"/v1/conversations/{conversation}/messages", json={"messages": [USER]})
    assert answer.text.startswith("data: {")
    assert "[DONE]" not in answer.text
    assert len(box.context(conversation)) == 3


def test_a_request_that_hangs_is_done_although_nobody_waits_for_it(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    box.faults({"endpoint": "compact", "kind": "hang:0.6", "times": 1})
    with httpx.Client(base_url=box.base_url, timeout=0.2) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post(f"/v1/conversations/{conversation}/compact")
    time.sleep(0.8)
    assert len(box.context(conversation)) < 21


def test_a_fault_for_one_conversation_spares_the_others_wherever_its_id_stands(box: Any) -> None:
    agent = box.agent()
    one, other = box.conversation(agent, pairs=5), box.conversation(agent, pairs=5)
    box.faults({"endpoint": "any", "kind": "500", "conversation_id": one})
    assert box.http.get(f"/v1/conversations/{one}").status_code == 500
    overview = {"conversation_id": one}
    assert box.http.get(f"/v1/agents/{agent}/context", params=overview).status_code == 500
    assert box.http.get(f"/v1/conversations/{other}").status_code == 200
    assert box.http.get(f"/v1/agents/{agent}/context", params={"conversation_id": other}).status_code == 200


def test_faults_of_the_command_line_repeat_themselves_with_their_seed(start: Callable[..., Any], tmp_path: Any) -> None:
    def statuses(name: str) -> list[int]:
        options = ("--fault", "health:503:0.4", "--fault", "health:500:0.2", "--fault-seed", "5")
        box = start(*options, database=tmp_path / name)
        return [box.http.get("/v1/health/").status_code for _ in range(60)]

    first = statuses("first.db")
    assert set(first) == {200, 500, 503}
    assert statuses("second.db") == first


def test_an_empty_set_of_faults_ends_them_all(box: Any) -> None:
    box.faults("any:500")
    assert box.http.get("/v1/health/").status_code == 500
    (shown,) = box.http.get("/sandbox/faults").json()
    assert (shown["kind"], shown["struck"]) == ("500", 1)
    box.faults()
    assert box.http.get("/v1/health/").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"faults": ["compact:nonsense"]},
        {"faults": [{"endpoint": "nowhere", "kind": "500"}]},
        {"faults": [{"endpoint": "compact", "kind": "500", "chance": 1}]},
        {"fault": []},
    ],
)
def test_faults_that_make_no_sense_are_refused_and_change_nothing(box: Any, body: dict[str, Any]) -> None:
    box.faults("health:500")
    assert box.http.post("/sandbox/faults", json=body).status_code == 422
    assert box.http.get("/v1/health/").status_code == 500


def test_latency_delays_each_request_but_not_the_steering(box: Any) -> None:
    box.latency(latency=0.3)
    started = time.monotonic()
    box.http.get("/v1/health/")
    assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    box.http.get("/sandbox/requests")
    assert time.monotonic() - started < 0.3
    assert box.http.post("/sandbox/latency", json={"latency": "soon"}).status_code == 422


def test_requests_are_counted_by_method_and_path(start: Callable[..., Any]) -> None:
    box = start()
    conversation = box.conversation(pairs=2)
    box.http.get(f"/v1/conversations/{conversation}")
    box.http.get(f"/v1/conversations/{conversation}")
    counted = box.http.get("/sandbox/requests").json()
    assert counted["GET /v1/conversations/{conversation_id}"] == 2
    assert counted["POST /v1/conversations/{conversation_id}/messages"] == 1
    assert not [path for path in counted if "/sandbox/" in path]


def test_a_fault_for_a_default_conversation_is_aimed_at_its_agent(box: Any) -> None:
    one, other = box.agent(), box.agent()
    box.faults({"endpoint": "compact", "kind": "500", "conversation_id": one})
    assert box.compact("default", agent=one, mode="all").status_code == 500
    assert box.compact("default", agent=other, mode="all").status_code == 400
