from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionResponse, CompactionSettings
from worker.contract.providers import GroqModelSettings, OpenAIModelSettings


def request(**settings: Any) -> CompactionRequest:
    return CompactionRequest.model_validate({"compaction_settings": settings})


def test_only_fields_that_were_set_are_sent() -> None:
    body = request(mode="sliding_window", sliding_window_percentage=0.3).body()
    assert body == {"compaction_settings": {"mode": "sliding_window", "sliding_window_percentage": 0.3}}


def test_an_empty_request_sends_an_empty_object() -> None:
    assert CompactionRequest().body() == {}


def test_an_explicit_null_is_sent_where_the_api_takes_null() -> None:
    assert request(clip_chars=None).body() == {"compaction_settings": {"clip_chars": None}}


def test_null_is_refused_where_the_api_does_not_take_it() -> None:
    with pytest.raises(ValidationError, match="must not be null"):
        request(prompt_acknowledgement=None)


def test_every_field_of_the_settings_is_sent_as_it_was_given() -> None:
    settings = {
        "clip_chars": 2000,
        "mode": "all",
        "model": "openai/gpt-4o-mini",
        "model_settings": {
            "provider_type": "openai",
            "max_output_tokens": 512,
            "parallel_tool_calls": False,
            "temperature": 0.2,
            "reasoning": {"reasoning_effort": "low"},
            "response_format": {"type": "json_schema", "json_schema": {"type": "object"}},
            "strict": True,
        },
        "prompt": "Summarize.",
        "prompt_acknowledgement": True,
        "sliding_window_percentage": 0.25,
    }
    assert request(**settings).body() == {"compaction_settings": settings}


def test_settings_made_in_code_send_what_they_were_given() -> None:
    settings = CompactionSettings(
        mode=CompactionMode.SELF_COMPACT_ALL,
        model_settings=GroqModelSettings(provider_type="groq", temperature=0.0),
    )
    body = CompactionRequest(compaction_settings=settings, agent_id="agent-1").body()
    assert body == {
        "compaction_settings": {
            "mode": "self_compact_all",
            "model_settings": {"provider_type": "groq", "temperature": 0.0},
        },
        "agent_id": "agent-1",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"percentage": 0.3},
        {"mode": "partial_evict"},
        {"mode": 1},
        {"clip_chars": "2000"},
        {"clip_chars": True},
        {"clip_chars": 0},
        {"sliding_window_percentage": "0.3"},
        {"sliding_window_percentage": -1},
        {"sliding_window_percentage": 1.5},
        {"sliding_window_percentage": math.nan},
        {"model": "gpt-4o-mini"},
        {"model": "openai/"},
        {"model": "openai/gpt 4o"},
        {"prompt": 3},
        {"model_settings": {}},
        {"model_settings": {"provider_type": "grok"}},
        {"model_settings": {"provider_type": "groq", "thinking": {"type": "enabled"}}},
        {"model_settings": {"provider_type": "google_ai", "response_format": {"type": "text"}}},
        {"model_settings": {"provider_type": "openai", "response_schema": {"type": "text"}}},
        {"model_settings": {"provider_type": "chatgpt_oauth", "reasoning": {"reasoning_effort": "minimal"}}},
        {"model_settings": {"provider_type": "openai", "response_format": {"type": "json_schema"}}},
        {"model_settings": {"provider_type": "openai", "response_format": {"type": "text", "json_schema": {}}}},
        {"model_settings": {"provider_type": "openai", "max_output_tokens": 0}},
        {"model_settings": {"provider_type": "openai", "temperature": math.inf}},
        {"model_settings": {"provider_type": "zai", "thinking": {"budget_tokens": 1}}},
    ],
)
def test_a_request_that_is_not_the_apis_is_refused_before_it_is_sent(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**settings)


def test_a_whole_number_is_taken_for_a_fraction() -> None:
    assert request(sliding_window_percentage=1).body() == {"compaction_settings": {"sliding_window_percentage": 1.0}}


def test_a_request_cannot_be_changed_after_it_was_checked() -> None:
    settings = OpenAIModelSettings(provider_type="openai")
    with pytest.raises(ValidationError, match="frozen"):
        settings.temperature = 2.0  # type: ignore[misc]


def test_the_sliding_modes_are_those_that_read_the_percentage() -> None:
    assert [mode.value for mode in CompactionMode if mode.slides] == ["sliding_window", "self_compact_sliding_window"]


def test_a_response_keeps_what_it_does_not_know() -> None:
    document = {"num_messages_before": 41, "num_messages_after": 11, "summary": "It began.", "cost": {"tokens": 7}}
    response = CompactionResponse.model_validate(document)
    assert (response.num_messages_before, response.num_messages_after, response.summary) == (41, 11, "It began.")
    assert response.model_dump() == document


@given(st.text(min_size=1, max_size=200))
def test_a_secret_prompt_never_shows_in_an_errors_text(prompt: str) -> None:
    secret = f"secret<{prompt}>"
    with pytest.raises(ValidationError) as caught:
        request(prompt=secret, mode=secret, model=secret + " ", clip_chars=secret, unknown=secret)
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value)
