from __future__ import annotations

import json

from sandbox.messages import message, text_of, tool_call, tool_result
from sandbox.summary import MAX_QUOTES, TRUNCATION_SUFFIX, pack, summarize

WHEN = "2026-11-23T04:28:29.000000Z"

QUESTION = message(
    "message-1", "user", "Why does the nightly import of the Zürich office stop at row 17? It is urgent."
)
ANSWER = message("message-2", "assistant", "Because row 17 has no date, and the parser insists on one. I can fix that.")


def test_the_summary_quotes_what_left_and_says_who_said_it() -> None:
    text = summarize([QUESTION, ANSWER], None)
    assert "user: Why does the nightly import of the Zürich office stop at row 17?" in text
    assert "assistant: Because row 17 has no date, and the parser insists on one." in text


def test_a_summary_that_is_too_long_is_cut_and_marked() -> None:
    assert summarize([QUESTION, ANSWER], 50) == summarize([QUESTION, ANSWER], None)[:50] + TRUNCATION_SUFFIX


def test_without_a_clip_it_is_not_cut() -> None:
    many = [message(f"message-{number}", "user", f"{number} ".ljust(400, "x")) for number in range(200)]
    assert TRUNCATION_SUFFIX not in summarize(many, None)


def test_a_long_history_is_quoted_from_its_first_message_to_its_last() -> None:
    many = [message(f"message-{number}", "user", f"This is the message with number {number}.") for number in range(200)]
    lines = summarize(many, None).splitlines()
    assert len(lines) == 1 + MAX_QUOTES
    assert lines[1] == "user: This is the message with number 0."
    assert lines[-1] == "user: This is the message with number 199."


def test_a_summary_is_never_longer_than_a_models_would_be() -> None:
    many = [message(f"message-{number}", "assistant", f"{number} ".ljust(4_000, "x")) for number in range(1_000)]
    assert 2_000 < len(summarize(many, None)) < 2_500


def test_tools_are_quoted_by_what_they_were_asked_and_answered() -> None:
    call = message("message-1", "assistant", [], tool_calls=[tool_call("call-1", "read_log", {"service": "web"})])
    result = tool_result("message-2", "call-1", "read_log", "12 lines", WHEN)
    text = summarize([call, result], None)
    assert 'assistant: called read_log({"service": "web"})' in text
    assert "tool: 12 lines" in text


def test_a_summary_of_a_summary_quotes_what_it_said_and_not_its_wrapping() -> None:
    older = message("message-1", "summary", pack("They talked about the import at length.", "all", WHEN))
    assert "summary: They talked about the import at length." in summarize([older], None)


def test_the_packed_summary_is_the_alert_that_the_server_stores() -> None:
    packed = json.loads(pack("It was short.", "sliding_window", WHEN))
    assert packed == {
        "type": "system_alert",
        "message": "Note: prior messages from the beginning of the conversation have been hidden from view due to"
        " conversation memory constraints.\nThe following is a summary of the previous messages:\n It was short.",
        "time": "2026-11-23 04:28:29 AM UTC+0000",
    }
    assert "from the beginning" not in pack("It was short.", "all", WHEN)


def test_messages_without_text_do_not_stop_a_summary() -> None:
    image = message("message-1", "user", [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x"}}])
    assert text_of(image) == ""
    assert "1 messages are summarized" in summarize([image], None)
