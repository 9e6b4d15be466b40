from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx

USER = {"role": "user", "content": "Where is the log?"}


def events(text: str) -> list[Any]:
    told = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) if one.startswith("{") else one for one in told]


def test_a_send_stores_both_sides_and_moves_the_time(box: Any) -> None:
    conversation = box.conversation()
    answer = box.send(conversation, USER)
    assert [one["message_type"] for one in answer["messages"]] == ["assistant_message"]
    assert answer["stop_reason"]["stop_reason"] == "end_turn"
    listed = box.listed(conversation, order="asc")
    assert [one["message_type"] for one in listed] == ["system_message", "user_message", "assistant_message"]
    assert listed[1]["content"] == USER["content"]
    assert listed[2] == answer["messages"][0]
    assert box.http.get(f"/v1/conversations/{conversation}").json()["last_message_at"] is not None


def test_a_whole_history_can_be_sent_at_once(box: Any) -> None:
    conversation = box.conversation()
    told = [USER, {"role": "assistant", "content": "There."}, {"role": "user", "content": "Thanks."}]
    box.send(conversation, *told)
    kinds = [one["message_type"] for one in box.listed(conversation, order="asc")]
    assert kinds == ["system_message", "user_message", "assistant_message", "user_message", "assistant_message"]


def test_replies_have_the_length_that_was_asked_for(start: Callable[..., Any]) -> None:
    box = start("--reply-chars", "33")
    assert len(box.send(box.conversation(), USER)["messages"][0]["content"]) == 33


def test_the_step_tells_the_prompts_tokens_and_the_window(box: Any) -> None:
    agent = box.agent(context_window_limit=9_000)
    answer = box.send(box.conversation(agent, pairs=3), USER)
    step = box.http.get(f"/v1/steps/{answer['messages'][0]['step_id']}").json()
    assert step["context_window_limit"] == 9_000
    assert step["prompt_tokens"] == answer["usage"]["prompt_tokens"] > 400
    assert step["total_tokens"] == step["prompt_tokens"] + step["completion_tokens"]
    assert (step["agent_id"], step["run_id"]) == (agent, answer["messages"][0]["run_id"])


def test_a_send_without_streaming_leaves_a_run_that_is_never_over_and_knows_no_conversation(box: Any) -> None:
    agent = box.agent()
    conversation = box.conversation(agent)
    run_id = box.send(conversation, USER)["messages"][0]["run_id"]
    run = box.http.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["conversation_id"], run["completed_at"]) == ("created", None, None)
    assert box.http.get("/v1/runs/", params={"conversation_id": conversation}).json() == []
    active = box.http.get("/v1/runs/", params={"agent_id": agent, "active": True}).json()
    assert [one["id"] for one in active] == [run_id]


def test_a_streamed_send_tells_its_run_its_reply_how_it_ended_and_that_it_is_done(box: Any) -> None:
    conversation = box.conversation()
    answer = box.http.post(f"/v1/conversations/{conversation}/messages", json={"messages": [USER]})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    told = events(answer.text)
    kinds = [one if isinstance(one, str) else one["message_type"] for one in told]
    assert kinds == ["ping", "assistant_message", "stop_reason", "usage_statistics", "[DONE]"]
    run = box.http.get(f"/v1/runs/{told[0]['run_id']}").json()
    assert (run["status"], run["conversation_id"], run["stop_reason"]) == ("completed", conversation, "end_turn")
    assert not run["completed_at"].endswith("Z")
    assert len(box.context(conversation)) == 3


def test_pings_come_while_the_agent_thinks_and_only_if_they_are_wanted(start: Callable[..., Any]) -> None:
    box = start("--ping-interval", "0.1", "--reply-latency", "0.45")
    for wanted, least in ((True, 4), (False, 0)):
        body = {"messages": [USER], "include_pings": wanted}
        told = events(box.http.post(f"/v1/conversations/{box.conversation()}/messages", json=body).text)
        pings = [one for one in told if one != "[DONE]" and one["message_type"] == "ping"]
        assert len(pings) >= least
        assert bool(pings) is wanted


def test_a_streamed_send_in_flight_is_an_active_run_and_its_messages_come_together_at_the_end(box: Any) -> None:
    conversation = box.conversation()
    box.latency(reply_latency=0.6)

    def stream() -> None:
        httpx.post(f"{box.base_url}/v1/conversations/{conversation}/messages", json={"messages": [USER]})

    sending = threading.Thread(target=stream)
    sending.start()
    time.sleep(0.3)
    (run,) = box.http.get("/v1/runs/", params={"conversation_id": conversation, "active": True}).json()
    assert run["status"] == "running"
    assert len(box.context(conversation)) == 1
    assert box.http.get(f"/v1/conversations/{conversation}").json()["last_message_at"] is not None
    sending.join()
    assert len(box.context(conversation)) == 3
    assert box.http.get("/v1/runs/", params={"conversation_id": conversation, "active": True}).json() == []


def test_a_client_that_leaves_a_stream_takes_the_agents_turn_with_it(box: Any) -> None:
    conversation = box.conversation()
    box.latency(reply_latency=0.5)
    url = f"{box.base_url}/v1/conversations/{conversation}/messages"
    with httpx.stream("POST", url, json={"messages": [USER]}) as answer:
        first = next(answer.iter_lines())
    run_id = json.loads(first.removeprefix("data: "))["run_id"]
    time.sleep(0.8)
    assert box.http.get(f"/v1/runs/{run_id}").json()["status"] == "failed"
    assert len(box.context(conversation)) == 1


def test_a_compaction_during_a_reply_is_undone_by_it(box: Any) -> None:
    conversation = box.conversation(pairs=5)
    box.latency(reply_latency=0.5)
    sending = threading.Thread(target=lambda: box.send(conversation, USER))
    sending.start()
    time.sleep(0.2)
    with httpx.Client(base_url=box.base_url) as other:
        after = other.post(f"/v1/conversations/{conversation}/compact").json()["num_messages_after"]
    sending.join()
    assert after < 11
    assert len(box.context(conversation)) == 13


def test_what_would_need_redis_is_503(box: Any) -> None:
    conversation = box.conversation()
    again = box.http.post(f"/v1/conversations/{conversation}/stream", json={})
    body = {"messages": [USER], "background": True}
    background = box.http.post(f"/v1/conversations/{conversation}/messages", json=body)
    assert (again.status_code, background.status_code) == (503, 503)
    assert "requires Redis" in again.json()["detail"]


def test_every_step_calls_the_webhook_with_its_key(start: Callable[..., Any]) -> None:
    heard: list[tuple[str | None, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class names it
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    listening = threading.Thread(target=server.serve_forever)
    listening.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        box = start(STEP_COMPLETE_WEBHOOK=url, STEP_COMPLETE_KEY="hook-key")
        conversation = box.conversation()
        step = box.send(conversation, USER)["messages"][0]["step_id"]
        box.http.post(f"/v1/conversations/{conversation}/messages", json={"messages": [USER]})
        deadline = time.monotonic() + 5
        while len(heard) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        server.shutdown()
        server.server_close()
        listening.join()
    assert heard[0] == ("Bearer hook-key", {"step_id": step})
    assert len(heard) == 2


def test_a_webhook_that_nobody_answers_does_not_disturb_the_send(start: Callable[..., Any]) -> None:
    box = start(STEP_COMPLETE_WEBHOOK="http://127.0.0.1:9/nobody")
    assert box.send(box.conversation(), USER)["stop_reason"]["stop_reason"] == "end_turn"
