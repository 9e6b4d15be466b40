from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import pytest

USER = {"role": "user", "content": "And one more thing."}


def test_a_compaction_reports_what_the_conversation_then_shows(box: Any) -> None:
    conversation = box.conversation(pairs=20)
    before = box.context(conversation)
    answer = box.compact(conversation, sliding_window_percentage=0.3).json()
    after = box.context(conversation)
    assert (answer["num_messages_before"], answer["num_messages_after"]) == (len(before), len(after)) == (41, 27)
    assert after[0] == before[0]
    assert after[2:] == before[16:]
    assert after[1] not in before


def test_the_summary_becomes_the_second_message_and_quotes_what_left(box: Any) -> None:
    conversation = box.conversation(pairs=20)
    answer = box.compact(conversation, sliding_window_percentage=0.3).json()
    summary_id = box.context(conversation)[1]
    (item,) = [one for one in box.listed(conversation) if one["id"] == summary_id]
    assert item["message_type"] == "user_message"
    alert = json.loads(item["content"])
    assert alert["type"] == "system_alert"
    assert alert["message"].endswith(answer["summary"])
    assert "user: Question 0 about topic 0." in answer["summary"]


def test_clip_chars_cuts_the_summary_and_null_does_not(box: Any) -> None:
    suffix = "... [summary truncated to fit]"
    clipped = box.compact(box.conversation(pairs=20), clip_chars=80).json()["summary"]
    assert len(clipped) == 80 + len(suffix)
    assert clipped.endswith(suffix)
    assert not box.compact(box.conversation(pairs=20), clip_chars=None).json()["summary"].endswith(suffix)


def test_every_message_stays_in_the_list_and_times_do_not_move(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    listed = {one["id"] for one in box.listed(conversation)}
    before = box.http.get(f"/v1/conversations/{conversation}").json()
    assert box.compact(conversation).status_code == 200
    after = box.http.get(f"/v1/conversations/{conversation}").json()
    assert (after["updated_at"], after["last_message_at"]) == (before["updated_at"], before["last_message_at"])
    assert {one["id"] for one in box.listed(conversation)} == listed | {after["in_context_message_ids"][1]}


def test_an_empty_body_uses_the_agents_own_settings_and_a_field_overrides_only_itself(box: Any) -> None:
    agent = box.agent(compaction_settings={"mode": "sliding_window", "sliding_window_percentage": 0.7, "clip_chars": 9})
    assert box.compact(box.conversation(agent, pairs=20)).json()["num_messages_after"] == 11
    answer = box.compact(box.conversation(agent, pairs=20), sliding_window_percentage=0.3).json()
    assert answer["num_messages_after"] == 27
    assert answer["summary"].endswith("... [summary truncated to fit]")


def test_an_unknown_model_and_unknown_fields_are_accepted(box: Any) -> None:
    settings = {"model": "nobody/nothing", "no_such_field": 1, "model_settings": {"provider_type": "groq", "x": 1}}
    assert box.compact(box.conversation(pairs=20), **settings).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "some"},
        {"sliding_window_percentage": "much"},
        {"model_settings": {"provider_type": "nobody"}},
        {"model_settings": {"temperature": 1}},
        {"clip_chars": "few"},
    ],
)
def test_settings_that_the_api_does_not_know_are_422(box: Any, settings: dict[str, Any]) -> None:
    conversation = box.conversation(pairs=5)
    answer = box.compact(conversation, **settings)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert len(box.context(conversation)) == 11


def test_what_cannot_be_reduced_is_400_after_the_summarizer_was_paid(box: Any) -> None:
    conversation = box.conversation(pairs=1)
    assert box.compact(conversation).json()["num_messages_after"] == 2
    answer = box.compact(conversation)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Summarization failed to reduce the number of messages.")
    log = box.log(conversation)
    assert (log["requests"], log["effective"], log["refused"], log["summarizer_calls"]) == (2, 1, 1, 2)
    assert log["history"][1]["committed"] is False


def test_a_conversation_that_was_never_used_is_400(box: Any) -> None:
    answer = box.compact(box.conversation())
    assert answer.status_code == 400
    assert "Summarization failed" in answer.json()["detail"]


def test_the_default_conversation_is_compacted_by_its_agent(box: Any) -> None:
    agent = box.agent()
    for _ in range(5):
        box.send("default", USER, agent_id=agent)
    answer = box.compact("default", agent=agent, mode="all").json()
    assert (answer["num_messages_before"], answer["num_messages_after"]) == (11, 2)
    ids = box.http.get(f"/v1/agents/{agent}").json()["message_ids"]
    assert len(ids) == 2
    assert box.log(f"default:{agent}")["history"][0]["after_ids"] == ids
    assert len(box.listed("default", agent_id=agent)) == 12


def test_the_log_says_which_messages_left(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    before = box.context(conversation)
    box.compact(conversation, sliding_window_percentage=0.3)
    (entry,) = box.log(conversation)["history"]
    assert entry["before_ids"] == before
    assert entry["after_ids"] == box.context(conversation)
    assert entry["evicted_ids"] == [one for one in before if one not in entry["after_ids"]]
    assert (entry["mode_used"], entry["committed"], entry["dropped_ids"]) == ("sliding_window", True, [])
    assert entry["settings"]["sliding_window_percentage"] == 0.3


def test_a_message_sent_while_a_compaction_runs_falls_out_of_the_context(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    box.latency(compact_latency=0.6)
    answers: list[int] = []
    compacting = threading.Thread(target=lambda: answers.append(box.compact(conversation).status_code))
    compacting.start()
    time.sleep(0.2)
    with httpx.Client(base_url=box.base_url) as other:
        sent = other.post(f"/v1/conversations/{conversation}/messages", json={"messages": [USER], "streaming": False})
        present = other.get(f"/v1/conversations/{conversation}").json()["in_context_message_ids"]
    compacting.join()
    assert (answers, sent.status_code, len(present)) == ([200], 200, 23)
    reply = sent.json()["messages"][0]["id"]
    assert reply in present
    assert reply not in box.context(conversation)
    assert box.log(conversation)["history"][0]["dropped_ids"] == present[-2:]
    newer = box.listed(conversation, order="asc", after=box.context(conversation)[-1])
    assert [one["id"] for one in newer if one["id"] in present[-2:]] == present[-2:]


def test_two_compactions_at_once_both_succeed_and_leave_one_summary(box: Any) -> None:
    conversation = box.conversation(pairs=20)
    box.latency(compact_latency=0.4)
    answers: list[dict[str, Any]] = []

    def compact() -> None:
        with httpx.Client(base_url=box.base_url) as client:
            answers.append(client.post(f"/v1/conversations/{conversation}/compact").json())

    threads = [threading.Thread(target=compact) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["num_messages_after"] for one in answers] == [27, 27]
    assert len(box.context(conversation)) == 27
    assert len(box.listed(conversation)) == 43
    assert box.log(conversation)["effective"] == 2


def test_a_compaction_carries_on_after_its_client_left(box: Any) -> None:
    conversation = box.conversation(pairs=20)
    box.latency(compact_latency=0.8)
    with httpx.Client(base_url=box.base_url, timeout=0.2) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post(f"/v1/conversations/{conversation}/compact")
    assert len(box.context(conversation)) == 41
    time.sleep(1.0)
    assert len(box.context(conversation)) == 27


def test_many_compactions_wait_for_the_summarizer_at_the_same_time(box: Any) -> None:
    agent = box.agent()
    conversations = [box.conversation(agent, pairs=5) for _ in range(20)]
    box.latency(compact_latency=0.5)
    started = time.monotonic()

    def compact(conversation: str) -> None:
        with httpx.Client(base_url=box.base_url) as client:
            client.post(f"/v1/conversations/{conversation}/compact").raise_for_status()

    threads = [threading.Thread(target=compact, args=(one,)) for one in conversations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 5.0  # one after another they would take ten
    assert all(box.log(one)["effective"] == 1 for one in conversations)


def test_a_hiccup_of_the_summarizer_wipes_what_should_have_been_cut(box: Any) -> None:
    conversation = box.conversation(pairs=20)
    box.faults({"endpoint": "compact", "kind": "hiccup", "times": 1})
    answer = box.compact(conversation, mode="sliding_window", sliding_window_percentage=0.3)
    assert answer.json()["num_messages_after"] == 2
    assert box.log(conversation)["history"][0]["mode_used"] == "all"


def test_a_fork_is_a_copy_that_a_compaction_does_not_touch(box: Any) -> None:
    conversation = box.conversation(pairs=10)
    fork = box.http.post(f"/v1/conversations/{conversation}/fork").json()
    assert fork["in_context_message_ids"] == []
    before = box.context(fork["id"])
    assert before[1:] == box.context(conversation)[1:]
    assert before[0] != box.context(conversation)[0]
    box.compact(conversation, mode="all")
    assert box.context(fork["id"]) == before
    box.http.delete(f"/v1/conversations/{conversation}").raise_for_status()
    assert len(box.listed(fork["id"])) == 21
