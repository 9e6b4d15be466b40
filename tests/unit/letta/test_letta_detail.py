from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.letta.detail import LIMIT, clip, parse_http_date, read_detail, read_retry_after

PROMPT = "a secret prompt"


def as_is(text: str) -> str:
    return text


def read(document: Any) -> str:
    return read_detail(json.dumps(document).encode(), as_is).text


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"detail": "Agent not found"}, "Agent not found"),
        ({"detail": {"code": "PENDING_APPROVAL", "message": "An approval is pending."}}, "An approval is pending."),
        ({"error": {"type": "llm_error", "message": "It failed.", "detail": "timeout"}}, "It failed. timeout"),
        ({"error": "not ready"}, "not ready"),
        ({"message": "no"}, "no"),
        ("plain", "plain"),
        ({"detail": "two\n  lines"}, "two lines"),
        (
            {"detail": [{"loc": ["body", "compaction_settings", "mode"], "msg": "not a mode", "input": PROMPT}]},
            "body.compaction_settings.mode: not a mode",
        ),
        (
            {"detail": "Conversation not found with id='x', access level in ['read'] for actor='id=user-1 name=boss'"},
            "Conversation not found with id='x'",
        ),
        ({}, ""),
        ([], ""),
        (7, ""),
    ],
)
def test_the_servers_words_are_found_wherever_it_puts_them(document: Any, text: str) -> None:
    assert read(document) == text


def test_a_printed_list_of_errors_names_the_fields_and_leaves_the_inputs_out() -> None:
    errors = [
        {"type": "literal_error", "loc": ("body", "mode"), "msg": "Input should be 'all'", "input": PROMPT},
        {"type": "missing", "loc": ("query", "limit"), "msg": "Field required", "input": {"prompt": PROMPT}},
    ]
    assert read({"detail": repr(errors)}) == "body.mode: Input should be 'all'; query.limit: Field required"


def test_a_printed_list_that_holds_an_exception_still_names_its_first_field() -> None:
    printed = (
        "[{'type': 'value_error', 'loc': ('body', 'messages', 0), 'msg': \"Value error, don't\", "
        "'input': 'a secret prompt', 'ctx': {'error': ValueError(\"don't\")}}]"
    )
    assert read({"detail": printed}) == "body.messages.0: Value error, don't"


def test_a_printed_list_that_cannot_be_read_is_not_shown() -> None:
    assert read({"detail": "[{'input': 'a secret prompt', <object>"}) == "the list of its errors could not be read"


def test_a_printed_validation_error_loses_its_inputs() -> None:
    printed = (
        "1 validation error for Request\nprompt\n  Input should be a valid string "
        "[type=string_type, input_value=['a secret prompt'], input_type=list]"
    )
    assert read({"detail": printed}) == "1 validation error for Request prompt Input should be a valid string"


def test_a_long_text_is_cut() -> None:
    text = read({"detail": "x" * 5000})
    assert len(text) == LIMIT
    assert text.endswith("…")


def test_a_secret_is_blotted_out_before_the_text_is_cut() -> None:
    text = "x" * (LIMIT - 5) + "the-key"
    assert "the-k" not in read_detail(json.dumps(text).encode(), lambda t: t.replace("the-key", "[key]")).text


@given(st.binary(max_size=200))
def test_no_body_makes_reading_it_fail(body: bytes) -> None:
    assert len(read_detail(body, as_is).text) <= LIMIT


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["detail", "error", "message", "type", "code", "loc", "msg"]), inner)
        ),
    )
)
def test_no_document_makes_reading_it_fail(document: Any) -> None:
    assert len(read(document)) <= LIMIT


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_wait_is_none_or_at_most_a_day(value: str, date: str) -> None:
    seconds = read_retry_after(value, date, datetime(2026, 11, 23, tzinfo=UTC))
    assert seconds is None or 0 <= seconds <= 86_400


def test_an_http_date_without_a_known_zone_is_utc() -> None:
    assert parse_http_date("Mon, 23 Nov 2026 04:21:17 -0000") == datetime(2026, 11, 23, 4, 21, 17, tzinfo=UTC)
    assert parse_http_date("yesterday") is None
    assert parse_http_date(None) is None


def test_clipping_leaves_a_short_text_alone() -> None:
    assert clip("short") == "short"
