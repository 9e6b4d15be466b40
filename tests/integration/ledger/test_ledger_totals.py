"""The sums that are kept: exactly what a recount of the closed rows gives, however they came to be closed."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import delete, select

from tests.support.race import race
from tests.support.rows import (
    CLOSING,
    INTENT,
    LEASE,
    MEASURED,
    MEASURED_AFTER,
    NOW,
    OTHER,
    OWNER,
    SCAN,
    begun,
    claimed,
    closed,
    compaction,
    hours,
    later,
    order,
    paged,
)
from worker.audit import database as audit_database
from worker.audit.announcer import Announcer
from worker.audit.compactions import Closing, LostClaim
from worker.audit.ledger import Ledger
from worker.audit.records import CLOSED_STATES, State
from worker.audit.reports import Wanted
from worker.audit.tables import flagged, scan_totals, totals
from worker.audit.totaltables import AFTER, BEFORE, EVER, bucket_column

FLAGS = ["full_wipe", "messages_dropped", "target_missed"]
Rows = list[dict[str, Any]]
Migrated = Callable[[Any], None]


@pytest.fixture
def recount() -> Migrated:
    """What the migration does with a ledger that has no sums yet."""
    module = ScriptDirectory(str(audit_database.MIGRATIONS)).get_revision("0004").module
    backfill: Migrated = module.backfill
    return backfill


def rows_of(ledger: Ledger, table: Any) -> Rows:
    with ledger.database.read() as connection:
        found = [dict(row._mapping) for row in connection.execute(select(table))]
    return sorted(found, key=repr)


def kept(ledger: Ledger) -> dict[str, Rows]:
    # How many a scan put down to be measured is not in the rows of releases that did not count it.
    scans = [{**row, "measured": None, "requests": None} for row in rows_of(ledger, scan_totals)]
    return {"totals": rows_of(ledger, totals), "scans": scans, "flagged": rows_of(ledger, flagged)}


def recounted(ledger: Ledger, recount: Migrated) -> dict[str, Rows]:
    with ledger.database.write() as connection:
        for table in (totals, scan_totals, flagged):
            connection.execute(delete(table))
        recount(connection)
    return kept(ledger)


def ever(ledger: Ledger, **wanted: str) -> dict[str, Any]:
    """The one row of sums over all days that is like that."""
    (row,) = [
        row
        for row in rows_of(ledger, totals)
        if row["day"] == EVER and all(row[name] == value for name, value in wanted.items())
    ]
    return row


def random_closing(rng: random.Random) -> Closing:
    after = replace(MEASURED_AFTER, tokens=rng.choice([0, 1, 800, 1_600, 6_001, 15_999, 16_000, 16_001, 40_000]))
    dropped = [f"message-{number}" for number in range(rng.randrange(3))]
    return replace(
        CLOSING,
        measured=None if rng.random() < 0.2 else after,
        num_messages_after=rng.randrange(2, 60),
        summary="é" * rng.randrange(9),
        flags=tuple(rng.sample(FLAGS, rng.randrange(4))),
        ids_dropped=rng.choice([None, dropped]),
        recovered=rng.random() < 0.3,
    )


def end_somehow(ledger: Ledger, rng: random.Random, conversation_id: str, scan_id: str | None) -> None:
    """One compaction from its plan to an end, at a time and of a kind that chance chooses."""
    now = NOW + timedelta(hours=rng.randrange(-60, 60), microseconds=rng.randrange(1_000_000))
    asked = order(conversation_id, trigger=rng.choice(["schedule", "cli"]), policy=rng.choice(["default", "other"]))
    asked = replace(
        asked, seen=replace(asked.seen, scan_id=scan_id), settings={"model": rng.choice(["", "openai/gpt-4o"])}
    )
    id_ = ledger.compactions.plan(asked, now=now).compaction_id
    assert id_ is not None
    row = ledger.compactions.claim(id_, now=now, owner=OWNER, lease=LEASE)
    assert row is not None
    if rng.random() < 0.8:
        tokens = rng.randrange(1, 40_000)
        intent = replace(INTENT, measured=replace(MEASURED, tokens=tokens))
        ledger.compactions.intend(id_, intent, owner=OWNER, now=now, lease=LEASE)
    end = now + timedelta(seconds=rng.uniform(-1, 90))
    match rng.choice(CLOSED_STATES):
        case State.SUCCEEDED:
            ledger.compactions.succeed(row, random_closing(rng), owner=OWNER, now=end)
        case State.REFUSED:
            ledger.compactions.refuse(row, "not_idle", "in use", owner=OWNER, now=end, delay=None)
        case _:
            ledger.compactions.fail(row, "http_500", "it broke", owner=OWNER, now=end, delay=hours)


def test_what_closings_add_up_is_what_a_recount_gives(ledger: Ledger, recount: Migrated) -> None:
    rng = random.Random(7)
    scan_ids = [begun(ledger, schedule=name).id for name in ("nightly", "pressure")]
    for number in range(150):
        end_somehow(ledger, rng, f"conv-{number % 40}", rng.choice([None, *scan_ids]))
    paged(ledger, scan_ids[0], "conv-1", "conv-2", empty=3)
    ledger.scans.begin(SCAN, now=later(seconds=5))
    ledger.scans.fail(scan_ids[0], "it could not list", now=later(minutes=3))
    ledger.scans.end_listing(scan_ids[1], owner=OWNER)
    ledger.scans.finish(scan_ids[1], now=later(minutes=2))
    found = kept(ledger)
    assert {row["state"] for row in found["scans"]} == {"failed", "finished", "skipped"}
    assert sum(row["compactions"] for row in found["totals"] if row["day"] == EVER) == 150
    assert {row["flags"] for row in found["totals"]} >= {"", "full_wipe", "full_wipe messages_dropped target_missed"}
    assert found == recounted(ledger, recount)


def test_closings_at_the_same_moment_are_all_added(ledger: Ledger, recount: Migrated) -> None:
    rows = [[claimed(ledger, f"conv-{racer}-{number}") for number in range(6)] for racer in range(8)]

    def close(racer: int) -> None:
        for number, row in enumerate(rows[racer]):
            closing = replace(CLOSING, flags=FLAGS[: (number + racer) % 3])
            ledger.compactions.succeed(row, closing, owner=OWNER, now=later(seconds=number))

    race(close)
    found = kept(ledger)
    assert sum(row["compactions"] for row in found["totals"] if row["day"] == EVER) == 48
    assert found == recounted(ledger, recount)


def test_a_closing_that_does_not_happen_adds_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    row = claimed(ledger)
    with pytest.raises(LostClaim):
        ledger.compactions.succeed(row, CLOSING, owner=OTHER, now=NOW)

    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError

    with monkeypatch.context() as patched:
        patched.setattr(Announcer, "compaction", broken)
        with pytest.raises(ArithmeticError):
            ledger.compactions.fail(row, "http_500", "it broke", owner=OWNER, now=NOW, delay=hours)
    assert kept(ledger) == {"totals": [], "scans": [], "flagged": []}
    ledger.compactions.succeed(row, CLOSING, owner=OWNER, now=NOW)
    with suppress(LostClaim):
        ledger.compactions.succeed(row, CLOSING, owner=OWNER, now=NOW)
    assert ever(ledger)["compactions"] == 1


def test_a_success_adds_its_tokens_its_messages_and_its_place_in_both_histograms(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=NOW, lease=LEASE)
    closing = replace(CLOSING, ids_dropped=("message-8", "message-9"))
    ledger.compactions.succeed(row, closing, owner=OWNER, now=later(seconds=2.5))
    sums = ever(ledger, state="succeeded", outcome="compacted", flags="target_missed")
    # From 12,500 tokens to 6,000 of a window of 16,000, with a summary of 14 bytes; from 43 messages to 19.
    assert (sums["compactions"], sums["measured"], sums["milliseconds"]) == (1, 1, 2_500)
    assert (sums["usage_before_millionths"], sums["usage_after_millionths"]) == (781_250, 375_000)
    assert (sums["tokens_before"], sums["tokens_after"], sums["tokens_freed"]) == (12_500, 6_000, 6_500)
    assert (sums["tokens_read_estimated"], sums["tokens_written_estimated"]) == (6_504, 4)
    assert (sums["messages_evicted"], sums["messages_dropped"]) == (25, 2)
    in_parts = {name for name, count in sums.items() if "_bucket_" in name and count}
    assert in_parts == {bucket_column(BEFORE, 8), bucket_column(AFTER, 4)}
    (day,) = [row for row in rows_of(ledger, totals) if row["day"] != EVER]
    assert day == {**sums, "day": date(2026, 11, 23)}


def test_a_scan_adds_what_it_listed_and_how_long_the_last_one_took(ledger: Ledger) -> None:
    for minutes in (3, 8):
        scan = begun(ledger, now=later(minutes=minutes))
        paged(ledger, scan.id, "conv-1", "conv-2", empty=3)
        ledger.scans.end_listing(scan.id, owner=OWNER)
        assert ledger.scans.claim_page(scan.id, 1, now=NOW, owner=OWNER, lease=LEASE) is not None
        ledger.scans.finish_page(scan.id, 1, owner=OWNER, reasons={"over_trigger": 2}, now=NOW, lease=LEASE)
        assert ledger.scans.finish(scan.id, now=later(minutes=minutes, seconds=minutes)) is not None
        assert ledger.scans.finish(scan.id, now=later(hours=1)) is None
    (sums,) = rows_of(ledger, scan_totals)
    assert (sums["schedule"], sums["trigger"], sums["state"]) == ("nightly", "schedule", "finished")
    assert (sums["scans"], sums["listed"], sums["measured"]) == (2, 10, 4)
    assert (sums["milliseconds"], sums["last_milliseconds"]) == (11_000, 8_000)
    assert sums["last_finished_at"] == later(minutes=8, seconds=8)


def test_stats_since_any_moment_are_those_of_the_rows_since_then(ledger: Ledger) -> None:
    rng = random.Random(11)
    for number in range(60):
        end_somehow(ledger, rng, f"conv-{number % 9}", None)
    claimed(ledger, "conv-open", now=later(hours=-4))
    for back in (None, 500.0, 70.0, 51.0, 30.5, 3.0, 0.0, -30.0):
        same_as_the_rows(ledger, None if back is None else NOW - timedelta(hours=back))


def same_as_the_rows(ledger: Ledger, since: datetime | None) -> None:
    rows = list(ledger.reports.compactions(Wanted(since=since), limit=None))
    done = [row for row in rows if row.state == State.SUCCEEDED]
    measured = [row for row in done if row.usage_before is not None and row.usage_after is not None]
    stats = ledger.reports.stats(since=since, flags=FLAGS)
    assert stats.by_state == count(row.state for row in rows)
    assert stats.by_outcome == count(row.outcome for row in rows if row.outcome)
    assert stats.by_trigger == count(row.trigger for row in rows)
    assert stats.by_flag == {flag: sum(flag in row.flags for row in rows) for flag in FLAGS}
    assert stats.tokens_freed == sum((row.tokens_before or 0) - (row.tokens_after or 0) for row in measured)
    for mean, side in ((stats.usage_before, "usage_before"), (stats.usage_after, "usage_after")):
        wanted = sum(getattr(row, side) for row in measured) / len(measured) if measured else None
        assert mean == (None if wanted is None else pytest.approx(wanted, abs=1e-6))
    assert stats.first_planned_at == min((row.planned_at for row in rows), default=None)
    assert stats.last_finished_at == max((row.finished_at for row in rows if row.finished_at), default=None)


def count(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in sorted(words):
        found[word] = found.get(word, 0) + 1
    return found


def test_rows_are_found_by_a_flag_and_by_what_else_is_wanted(ledger: Ledger) -> None:
    wiped = closed_with(ledger, "conv-1", ["full_wipe"], later(hours=1))
    both = closed_with(ledger, "conv-2", ["full_wipe", "messages_dropped"], later(hours=2))
    closed(ledger, State.FAILED, "conv-3")

    def ids(**wanted: Any) -> list[str]:
        return [row.id for row in ledger.reports.compactions(Wanted(**wanted), limit=10)]

    assert ids(flag="full_wipe") == [both, wiped]
    assert ids(flag="messages_dropped") == [both]
    assert ids(flag="full_wipe", since=later(hours=2)) == [both]
    assert ids(flag="full_wipe", conversation_id="conv-1") == [wiped]
    assert ids(flag="full_wipe", agent_id="agent-1", state="succeeded") == [both, wiped]
    assert ids(flag="full_wipe", agent_id="agent-2") == ids(flag="full_wipe", state="failed") == []
    assert ids(flag="full_wipe", scan_id="scan-1") == ids(flag="target_missed") == []


def closed_with(ledger: Ledger, conversation_id: str, flags: list[str], now: datetime) -> str:
    row = claimed(ledger, conversation_id, now=now)
    ledger.compactions.succeed(row, replace(CLOSING, flags=flags), owner=OWNER, now=now)
    assert compaction(ledger, row.id).flags == flags
    return row.id


def test_the_doors_answers_are_added_by_many_processes_at_once(ledger: Ledger) -> None:
    def answer(racer: int) -> None:
        routes = ["/webhooks/compaction", "/webhooks/letta/step-complete"]
        for _ in range(5):
            ledger.answers.add({(route, 202): 2 for route in (routes if racer % 2 else reversed(routes))})

    race(answer)
    ledger.answers.add({})
    assert ledger.monitoring.figures().answers == {
        ("/webhooks/compaction", 202): 80,
        ("/webhooks/letta/step-complete", 202): 80,
    }
