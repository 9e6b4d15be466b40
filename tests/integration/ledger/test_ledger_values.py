"""What the ledger does to times, texts and transactions, on either database."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from tests.support.rows import NOW, compaction, later, planned, seen, skipped
from worker.audit.database import require_head
from worker.audit.ledger import Ledger


def test_times_come_back_aware_and_in_utc(ledger: Ledger) -> None:
    given = datetime.fromisoformat("2026-11-23T04:30:00.123456+05:30")
    planned(ledger, now=given)
    row = next(ledger.conversations.listing())
    assert row.last_seen_at == given
    assert row.last_seen_at.isoformat() == "2026-11-22T23:00:00.123456+00:00"
    assert row.last_seen_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused_and_nothing_is_written(ledger: Ledger) -> None:
    naive = datetime(2026, 11, 23, 3, 0)  # noqa: DTZ001 - that is the point
    with pytest.raises(StatementError, match="aware datetimes only"):
        ledger.conversations.record([skipped("conv-1"), skipped("conv-2", last_message_at=naive)], now=NOW)
    assert list(ledger.conversations.listing()) == []


def test_times_are_compared_as_times_whatever_zone_they_are_given_in(ledger: Ledger) -> None:
    id_ = planned(ledger, now=NOW)
    ledger.compactions.enqueued([id_], now=NOW)
    early = later(minutes=4).astimezone(datetime.fromisoformat("2026-01-01T00:00:00-11:00").tzinfo)
    assert ledger.open_rows.unclaimed(now=early, patience=later(minutes=5) - NOW, limit=1) == []
    assert ledger.open_rows.unclaimed(now=later(minutes=6), patience=later(minutes=5) - NOW, limit=1) == [id_]


def test_text_of_any_script_and_any_json_comes_back_as_it_was(ledger: Ledger) -> None:
    settings = {"prompt": "Grüße 你好 👋 \" ' \\ \n", "clip_chars": None, "nested": [1, 2.5, True, {"a": []}]}
    row = compaction(ledger, planned(ledger, settings=settings, seen=seen(sentence="ünïcode; 'quoted'")))
    assert row.settings == settings
    assert row.sentence == "ünïcode; 'quoted'"


def test_a_block_that_fails_writes_nothing(ledger: Ledger) -> None:
    def fail_halfway() -> None:
        with ledger.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail_halfway()
    require_head(ledger.database)
