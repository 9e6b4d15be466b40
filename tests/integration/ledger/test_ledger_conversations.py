"""The ledger's view of conversations: what was seen, measured and decided last."""

from dataclasses import replace
from datetime import timedelta

from tests.support.race import RACERS, race
from tests.support.rows import (
    AGENT,
    MEASURED,
    NOW,
    claimed,
    closed,
    later,
    planned,
    seen,
    skipped,
)
from worker.audit.conversations import KEYS_A_QUERY
from worker.audit.ledger import Ledger
from worker.audit.records import State


def names(rows: object) -> list[str]:
    return [row.conversation_id for row in rows]  # type: ignore[attr-defined]


def with_tokens(conversation_id: str, tokens: int) -> object:
    return skipped(conversation_id, measured=replace(MEASURED, tokens=tokens))


def test_conversations_never_seen_are_left_out(ledger: Ledger) -> None:
    ledger.conversations.record([skipped("conv-1")], now=NOW)
    assert list(ledger.conversations.known([(AGENT, "conv-1"), (AGENT, "conv-2")])) == [(AGENT, "conv-1")]
    assert ledger.conversations.known([]) == {}


def test_a_default_conversation_is_known_by_its_agent(ledger: Ledger) -> None:
    rows = [replace(skipped("default"), agent_id=agent, sentence=agent) for agent in ("agent-1", "agent-2")]
    ledger.conversations.record(rows, now=NOW)
    known = ledger.conversations.known([("agent-2", "default")])
    assert known["agent-2", "default"].conversation.sentence == "agent-2"


def test_many_conversations_are_looked_up_in_one_call(ledger: Ledger) -> None:
    count = KEYS_A_QUERY + 1
    ledger.conversations.record([skipped(f"conv-{number}") for number in range(count)], now=NOW)
    keys = [(AGENT, f"conv-{number}") for number in range(count)]
    assert ledger.conversations.known(keys).keys() == set(keys)


def test_a_second_sight_changes_the_row_and_keeps_the_first_date(ledger: Ledger) -> None:
    ledger.conversations.record([skipped("conv-1", reason="empty")], now=NOW)
    ledger.conversations.record(
        [skipped("conv-1", reason="cooldown", last_message_at=later(days=1))], now=later(days=2)
    )
    row = ledger.conversations.known([(AGENT, "conv-1")])[AGENT, "conv-1"].conversation
    assert (row.first_seen_at, row.last_seen_at) == (NOW, later(days=2))
    assert (row.reason, row.last_message_at, row.decided_at) == ("cooldown", later(days=1), later(days=2))


def test_a_sight_without_a_measurement_keeps_the_last_one(ledger: Ledger) -> None:
    ledger.conversations.record([seen("conv-1")], now=NOW)
    ledger.conversations.record([skipped("conv-1", reason="unchanged")], now=later(days=1))
    row = ledger.conversations.known([(AGENT, "conv-1")])[AGENT, "conv-1"].conversation
    assert (row.usage, row.tokens, row.window, row.usage_source) == (0.75, 12_000, 16_000, "context_overview")
    assert (row.measured_at, row.reason) == (NOW, "unchanged")


def test_being_seen_does_not_touch_what_puts_a_conversation_off(ledger: Ledger) -> None:
    closed(ledger, State.FAILED)
    ledger.conversations.record([skipped("conv-1", reason="put_off")], now=later(minutes=1))
    row = ledger.conversations.known([(AGENT, "conv-1")])[AGENT, "conv-1"].conversation
    assert (row.failures_in_row, row.not_before) == (1, later(hours=1))


def test_eight_scans_that_see_one_new_conversation_make_one_row(ledger: Ledger) -> None:
    race(lambda number: ledger.conversations.record([skipped("conv-1", sentence=str(number))], now=NOW))
    rows = list(ledger.conversations.listing())
    assert names(rows) == ["conv-1"]
    assert rows[0].sentence in {str(number) for number in range(RACERS)}


def test_an_open_compaction_is_known_until_it_is_closed(ledger: Ledger) -> None:
    key = (AGENT, "conv-1")
    row = claimed(ledger)
    known = ledger.conversations.known([key])[key]
    assert known.open_compaction == row.id
    assert known.without_open().open_compaction is None
    assert known.without_open().conversation == known.conversation
    ledger.compactions.fail(row, "http_500", "it broke", owner="worker-a", now=NOW, delay=lambda _: timedelta())
    assert ledger.conversations.known([key])[key].open_compaction is None


def test_the_fullest_come_first_and_the_unmeasured_last(ledger: Ledger) -> None:
    rows = [skipped("conv-none"), with_tokens("conv-low", 100), with_tokens("conv-full", 17_000), with_tokens("b", 100)]
    ledger.conversations.record(rows, now=NOW)  # type: ignore[arg-type]
    assert names(ledger.conversations.listing()) == ["conv-full", "conv-low", "b", "conv-none"]
    assert names(ledger.conversations.listing(limit=2)) == ["conv-full", "conv-low"]


def test_the_view_is_narrowed_by_reason_and_by_who_is_put_off(ledger: Ledger) -> None:
    closed(ledger, State.FAILED, "conv-off")
    planned(ledger, "conv-planned")
    ledger.conversations.record([skipped("conv-empty")], now=NOW)
    assert names(ledger.conversations.listing(reason="empty")) == ["conv-empty"]
    assert names(ledger.conversations.listing(put_off_at=NOW)) == ["conv-off"]
    assert names(ledger.conversations.listing(put_off_at=later(hours=1))) == []
    assert names(ledger.conversations.listing(reason="empty", put_off_at=NOW)) == []


def test_a_long_view_is_read_bit_by_bit_while_others_write(ledger: Ledger) -> None:
    ledger.conversations.record([skipped(f"conv-{number:04}") for number in range(1200)], now=NOW)
    rows = ledger.conversations.listing()
    first = next(rows)
    ledger.conversations.record([skipped("conv-new")], now=later(seconds=1))
    assert len([first, *rows]) == 1200
