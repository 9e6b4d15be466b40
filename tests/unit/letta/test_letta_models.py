from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from worker.letta.models import Agent, Conversation, Run, Step, Unreadable, read_rows

AT = datetime(2026, 11, 23, 4, 12, 21, 136057, tzinfo=UTC)


def conversation(**fields: Any) -> Conversation:
    return Conversation.model_validate({"id": "conv-1", "agent_id": "agent-1"} | fields)


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T04:12:21.136057Z", "2026-11-23T04:12:21.136057", "2026-11-23T05:12:21.136057+01:00"],
)
def test_a_time_is_in_utc_whether_the_server_names_a_zone_or_not(text: str) -> None:
    moment = conversation(last_message_at=text).last_message_at
    assert moment == AT
    assert moment is not None
    assert moment.utcoffset() == timedelta(0)


def test_a_time_with_another_zone_is_moved_to_utc() -> None:
    east = AT.astimezone(timezone(timedelta(hours=9)))
    assert conversation(created_at=east).created_at == AT


def test_never_and_not_known_are_told_apart() -> None:
    never = conversation(last_message_at=None)
    unknown = conversation()
    assert never.last_message_at is unknown.last_message_at is None
    assert never.knows_last_message
    assert not unknown.knows_last_message


def test_unknown_fields_and_nulls_do_no_harm() -> None:
    read = conversation(isolated_block_ids=["b"], model_settings={"provider_type": "new"}, in_context_message_ids=None)
    assert read.in_context_message_ids == []


def test_a_page_with_one_unreadable_row_still_yields_the_others() -> None:
    good = {"id": "conv-1", "agent_id": "agent-1"}
    rows = read_rows(
        [
            good,
            {"id": "conv-2"},
            {"id": "conv-3", "agent_id": "agent-1", "last_message_at": "yesterday, a secret"},
            {"id": 4, "agent_id": "agent-1"},
            "garbage",
            None,
            good | {"id": "conv-7"},
        ],
        Conversation,
    )
    assert [row.id for row in rows] == ["conv-1", "conv-2", "conv-3", None, None, None, "conv-7"]
    assert [isinstance(row, Unreadable) for row in rows] == [False, True, True, True, True, True, False]
    assert rows[1] == Unreadable("conv-2", "agent_id: is required")
    assert "secret" not in repr(rows[2])
    assert rows[4] == Unreadable(None, "is not an object")


@pytest.mark.parametrize(
    ("raw", "window"),
    [
        ({"llm_config": {"context_window": 16000}}, 16000),
        ({"context_window_limit": 32000}, 32000),
        ({"context_window_limit": None, "llm_config": {"context_window": 8000}}, 8000),
        ({"context_window_limit": 9000, "llm_config": {"context_window": 8000}}, 9000),
        ({"llm_config": None}, None),
        ({"llm_config": "garbage"}, None),
        ({}, None),
    ],
)
def test_an_agents_window_is_found_wherever_the_server_keeps_it(raw: dict[str, Any], window: int | None) -> None:
    assert Agent.model_validate({"id": "agent-1"} | raw).window == window


def test_an_agents_model_is_its_handle_or_else_its_configurations() -> None:
    config = {"llm_config": {"handle": "openai/old"}}
    assert Agent.model_validate({"id": "agent-1", "model": "openai/new"} | config).model == "openai/new"
    assert Agent.model_validate({"id": "agent-1"} | config).model == "openai/old"


def test_an_agents_own_settings_are_kept_as_the_server_has_them() -> None:
    settings = {"mode": "sliding_window", "something_new": {"a": 1}}
    assert Agent.model_validate({"id": "agent-1", "compaction_settings": settings}).compaction_settings == settings


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"prompt_tokens": 800, "context_window_limit": 1000, "total_tokens": 1500}, 0.8),
        ({"prompt_tokens": 800}, None),
        ({"prompt_tokens": None, "context_window_limit": 1000}, None),
        ({"prompt_tokens": 800, "context_window_limit": 0}, None),
    ],
)
def test_a_steps_usage_is_its_prompt_against_its_window(raw: dict[str, Any], usage: float | None) -> None:
    assert Step.model_validate({"id": "step-1"} | raw).usage == usage


@pytest.mark.parametrize(
    ("raw", "active"),
    [
        ({"status": "created"}, True),
        ({"status": "running"}, True),
        ({"status": "something_new"}, True),
        ({"status": "running", "completed_at": "2026-11-23T04:12:21"}, False),
        ({"status": "completed"}, False),
        ({"status": "failed"}, False),
        ({"status": "cancelled"}, False),
    ],
)
def test_a_run_is_active_until_it_has_ended(raw: dict[str, Any], *, active: bool) -> None:
    assert Run.model_validate({"id": "run-1"} | raw).active is active


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        conversation().summary = "x"  # type: ignore[misc]
