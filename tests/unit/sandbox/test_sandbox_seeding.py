from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox import tokens
from sandbox.agents import compiled_system_message
from sandbox.ids import CONVERSATION_ID
from sandbox.listing import Page
from sandbox.schema import connect
from sandbox.seeding import seed
from sandbox.store import Conversation, Store
from sandbox.vocabulary import ANSWERS, FOLLOW_UPS, compose, reply

EVERYTHING = Page(10_000, None, "desc", "created_at")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    connection = connect(tmp_path / "seeded.db")
    yield Store(connection)
    connection.close()


def other(tmp_path: Path, value: int) -> Store:
    made = Store(connect(tmp_path / f"{value}-{time.monotonic_ns()}.db"))
    seed(made, 20, value)
    return made


def usage(store: Store, conversation: Conversation) -> float:
    agent = store.agent(conversation["agent_id"])
    others = store.messages(store.in_context_ids(conversation["id"])[1:])
    shown = tokens.overview(compiled_system_message(store, agent), others, agent["window"], 0)
    return float(shown["context_window_size_current"] / shown["context_window_size_max"])


def test_forty_conversations_take_less_than_two_seconds(store: Store) -> None:
    started = time.monotonic()
    seed(store, 40, 1)
    assert time.monotonic() - started < 2.0
    assert len(store.conversations(EVERYTHING, None)) == 40


@pytest.mark.parametrize("wanted", [1, 2, 7, 40])
def test_as_many_conversations_are_made_as_were_asked_for(store: Store, wanted: int) -> None:
    seed(store, wanted, 1)
    rows = store.conversations(EVERYTHING, None)
    assert len(rows) == wanted
    assert {row["agent_id"] for row in rows} <= {agent["id"] for agent in store.agents(EVERYTHING)}


def test_their_usage_is_spread(store: Store) -> None:
    seed(store, 40, 1)
    found = [usage(store, row) for row in store.conversations(EVERYTHING, None)]
    assert 10 <= sum(one > 0.6 for one in found) <= 14
    assert 4 <= sum(one > 0.85 for one in found) <= 8
    assert sum(one < 0.12 for one in found) >= 8
    assert max(found) < 1.0


def test_their_age_is_spread_from_minutes_to_months_and_some_were_never_used(store: Store) -> None:
    seed(store, 40, 1)
    now = datetime.now(UTC)
    rows = store.conversations(EVERYTHING, None)
    used = [now - datetime.fromisoformat(row["last_message_at"]) for row in rows if row["last_message_at"]]
    assert len(rows) - len(used) == 4
    assert min(used).total_seconds() < 10 * 60
    assert max(used).days > 30
    assert all(age.total_seconds() > 0 for age in used)


def test_full_conversations_are_both_idle_and_still_in_use(store: Store) -> None:
    seed(store, 40, 1)
    now = datetime.now(UTC)
    full = [row for row in store.conversations(EVERYTHING, None) if usage(store, row) > 0.85]
    ages = [(now - datetime.fromisoformat(row["last_message_at"])).total_seconds() for row in full]
    assert any(age < 600 for age in ages)
    assert sum(age > 3_600 for age in ages) >= 3


def test_agents_have_windows_of_different_size_and_default_conversations(store: Store) -> None:
    seed(store, 40, 1)
    agents = store.agents(EVERYTHING)
    assert {agent["window"] for agent in agents} == {8_000, 16_000, 32_000}
    assert all(len(agent["message_ids"]) > 1 for agent in agents)


def test_the_same_value_makes_the_same_data_and_another_value_other_data(tmp_path: Path) -> None:
    first, again, different = (other(tmp_path, value) for value in (7, 7, 8))

    def texts(store: Store) -> dict[str, list[object]]:
        rows = store.conversations(EVERYTHING, None)
        return {
            row["id"]: [one["content"] for one in store.messages(store.in_context_ids(row["id"])[1:])] for row in rows
        }

    def quoted(store: Store) -> list[str]:
        return sorted(store.in_context_ids(row["id"])[-1] for row in store.conversations(EVERYTHING, None))

    assert texts(first).keys() == texts(again).keys()
    assert quoted(first) == quoted(again)
    assert texts(first).keys().isdisjoint(texts(different).keys())


def test_messages_are_in_order_of_time_and_tool_calls_have_their_answers(store: Store) -> None:
    seed(store, 20, 1)
    calls = answers = 0
    for row in store.conversations(EVERYTHING, None):
        messages = store.messages(store.in_context_ids(row["id"]))
        told = [one for one in messages if one["role"] not in {"summary", "system"}]
        assert [one["created_at"] for one in told] == sorted(one["created_at"] for one in told)
        if told:
            assert told[-1]["created_at"] == row["last_message_at"]
        calls += sum(len(one["tool_calls"] or []) for one in told)
        answers += sum(one["role"] == "tool" for one in told)
    assert calls == answers > 20


def test_some_conversations_were_compacted_before(store: Store) -> None:
    seed(store, 20, 1)
    contexts = [store.messages(store.in_context_ids(row["id"])) for row in store.conversations(EVERYTHING, None)]
    assert sum(len(one) > 1 and one[1]["role"] == "summary" for one in contexts) == 2


def test_ids_look_like_lettas(store: Store) -> None:
    seed(store, 5, 1)
    assert all(re.match(CONVERSATION_ID, row["id"]) for row in store.conversations(EVERYTHING, None))


def test_texts_are_as_long_as_they_should_be() -> None:
    assert len(reply("any", 500)) == 500
    assert reply("any", 500) == reply("any", 500)
    assert 300 <= len(compose(random.Random(1), ANSWERS, FOLLOW_UPS, 300)) < 420
