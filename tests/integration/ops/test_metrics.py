"""The figures for Prometheus, read off a ledger on each database."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from ops.metrics import LedgerCollector
from tests.support.metrics import page_of, samples, value
from tests.support.rows import (
    CLOSING,
    ENDINGS,
    INTENT,
    LEASE,
    NOW,
    OWNER,
    SCAN,
    begun,
    claimed,
    closed,
    later,
    planned,
    seen,
)
from worker.audit.database import Database, upgrade
from worker.audit.events import Arrival, Source
from worker.audit.ledger import Ledger
from worker.audit.records import State
from worker.audit.throttles import Limits
from worker.settings import Settings

POLICY = """
[policies.default]
[schedules.nightly]
policy = "default"
cron = "0 3 * * *"
[schedules.pressure]
policy = "default"
every = "15m"
"""


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    database = Database(database_url)
    upgrade(database)
    yield Ledger(database)
    database.close()


@pytest.fixture
def collector(database_url: str, tmp_path: Path) -> Iterator[LedgerCollector]:
    with collecting(database_url, tmp_path) as opened:
        yield opened


@contextmanager
def collecting(url: str, folder: Path, *, keep_for: float = 0) -> Iterator[LedgerCollector]:
    (folder / "policy.toml").write_text(POLICY)
    environment = {"COMPACTOR_DATABASE_URL": url, "COMPACTOR_POLICY_FILE": str(folder / "policy.toml")}
    opened = LedgerCollector(
        Settings.load(environment, directory=folder), keep_for=keep_for, now=lambda: later(hours=1)
    )
    with closing(opened):
        yield opened


def test_a_success_is_told_by_its_outcome_its_tokens_and_its_usages(ledger: Ledger, collector: LedgerCollector) -> None:
    row = claimed(ledger)
    ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=NOW, lease=LEASE)
    ledger.compactions.succeed(row, replace(CLOSING, ids_dropped=("message-7",)), owner=OWNER, now=later(seconds=2))
    page = page_of(collector)
    assert value(page, "compactor_ledger_up") == 1
    told = {"state": "succeeded", "outcome": "compacted", "reason": "over_trigger", "trigger": "schedule"}
    assert value(page, "compactor_compactions_total", **told) == 1
    assert value(page, "compactor_tokens_freed_total", model="(agent's own)") == 6_500
    assert value(page, "compactor_summarizer_tokens_estimated_total", direction="read") == 6_504
    assert value(page, "compactor_summarizer_tokens_estimated_total", direction="written") == 4
    assert value(page, "compactor_messages_dropped_total", policy="default") == 1
    assert value(page, "compactor_flagged_total", flag="target_missed") == 1
    assert value(page, "compactor_compaction_seconds_total", state="succeeded") == 2
    for side, usage, bounds in (("before", 0.78125, ("0.7", "0.8")), ("after", 0.375, ("0.3", "0.4"))):
        name = f"compactor_usage_{side}"
        assert [value(page, f"{name}_bucket", le=bound) for bound in (*bounds, "+Inf")] == [0, 1, 1]
        assert (value(page, f"{name}_sum"), value(page, f"{name}_count")) == (usage, 1)


def test_what_waits_is_told_with_its_age(ledger: Ledger, collector: LedgerCollector) -> None:
    page = page_of(collector)
    assert value(page, "compactor_oldest_planned_age_seconds") == 0
    assert value(page, "compactor_oldest_unhandled_event_age_seconds") == 0
    planned(ledger, "conv-1", now=later(minutes=30))
    planned(ledger, "conv-2", now=later(minutes=40))
    claimed(ledger, "conv-3")
    ledger.events.receive([Arrival(Source.SIGNED, "key-1", conversation_id="conv-1")], now=later(minutes=50))
    page = page_of(collector)
    assert value(page, "compactor_open_compactions", state="planned") == 2
    assert value(page, "compactor_open_compactions", state="running") == 1
    assert value(page, "compactor_compactions_under_way") == 1
    assert value(page, "compactor_oldest_planned_age_seconds") == 1_800
    assert value(page, "compactor_events", state="received") == 1
    assert value(page, "compactor_oldest_unhandled_event_age_seconds") == 600


def test_schedules_are_told_with_their_interval_and_when_they_last_finished_succeeded_and_failed(
    ledger: Ledger, collector: LedgerCollector
) -> None:
    scan = begun(ledger, schedule="pressure")
    for conversation, state, minutes in (("conv-1", State.SUCCEEDED, 3), ("conv-2", State.FAILED, 4)):
        of_the_scan = planned(ledger, conversation, seen=seen(conversation, scan_id=scan.id))
        row = ledger.compactions.claim(of_the_scan, now=NOW, owner=OWNER, lease=LEASE)
        assert row is not None
        ENDINGS[state](ledger, row, OWNER, later(minutes=minutes))
    ledger.scans.end_listing(scan.id, owner=OWNER)
    ledger.scans.finish(scan.id, now=later(minutes=2))
    page = page_of(collector)
    assert value(page, "compactor_schedule_interval_seconds", schedule="nightly") == 86_400
    assert value(page, "compactor_schedule_interval_seconds", schedule="pressure") == 900
    for name, minutes in (("finished_scan", 2), ("success", 3), ("failure", 4)):
        at = value(page, f"compactor_last_{name}_timestamp_seconds", schedule="pressure")
        assert at == later(minutes=minutes).timestamp()
    assert value(page, "compactor_last_scan_duration_seconds", schedule="pressure") == 120
    assert value(page, "compactor_scans_total", schedule="pressure", state="finished") == 1
    assert value(page, "compactor_last_finished_scan_timestamp_seconds", schedule="nightly") is None


def test_a_scan_by_hand_does_not_hide_that_beat_is_dead(ledger: Ledger, collector: LedgerCollector) -> None:
    for minutes, trigger in ((1, "schedule"), (5, "cli")):
        by, _ = ledger.scans.begin(replace(SCAN, trigger=trigger), now=later(minutes=minutes), owner=OWNER, lease=LEASE)
        ledger.scans.end_listing(by.id, owner=OWNER)
        ledger.scans.finish(by.id, now=later(minutes=minutes))
    at = value(page_of(collector), "compactor_last_finished_scan_timestamp_seconds", schedule="nightly")
    assert at == later(minutes=1).timestamp()


def test_breakers_and_limits_are_told_for_each_model(ledger: Ledger, collector: LedgerCollector) -> None:
    limits = Limits(32, 16)
    for _ in range(5):
        ledger.throttles.change("openai/gpt-4o", limits, lambda throttle: throttle.failed(later(hours=1)))
    ledger.throttles.change("*", limits, lambda throttle: throttle.pushed_back(NOW, None))
    page = page_of(collector)
    states = {
        state: value(page, "compactor_breaker", model="openai/gpt-4o", state=state) for state in ("open", "closed")
    }
    assert states == {"open": 1, "closed": 0}
    assert value(page, "compactor_breaker", model="*", state="closed") == 1
    assert value(page, "compactor_in_flight_limit", model="*") == 16


def test_counters_go_on_where_they_were_after_a_restart(ledger: Ledger, database_url: str, tmp_path: Path) -> None:
    counts = []
    for number in range(2):
        closed(ledger, State.REFUSED, f"conv-{number}", now=later(days=number))
        ledger.answers.add({("/webhooks/compaction", 202): 3})
        with collecting(database_url, tmp_path) as collector:
            page = page_of(collector)
        refused = value(page, "compactor_compactions_total", state="refused")
        counts.append((refused, value(page, "compactor_webhook_answers_total", status="202")))
    assert counts == [(1, 3), (2, 6)]


def test_a_reading_is_given_again_for_a_moment(ledger: Ledger, database_url: str, tmp_path: Path) -> None:
    with collecting(database_url, tmp_path, keep_for=3600) as collector:
        first = page_of(collector)
        planned(ledger)
        assert page_of(collector) == first
    with collecting(database_url, tmp_path) as collector:
        assert page_of(collector) != first


def test_no_id_and_nothing_that_was_said_is_on_the_page(ledger: Ledger, collector: LedgerCollector) -> None:
    row = claimed(ledger, "conv-marked")
    closing = replace(CLOSING, summary="marked-summary", ids_dropped=("message-marked",), error="marked-error")
    ledger.compactions.succeed(row, closing, owner=OWNER, now=NOW)
    ledger.events.receive([Arrival(Source.SIGNED, "key-marked", "conv-marked", note="marked-note")], now=NOW)
    page = page_of(collector)
    assert "marked" not in page
    assert row.id not in page
    assert row.agent_id not in page


def test_a_database_that_goes_away_leaves_one_figure_and_comes_back(
    ledger: Ledger, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(database_url, tmp_path) as collector, caplog.at_level(logging.WARNING):
        assert value(page_of(collector), "compactor_ledger_up") == 1
        with ledger.database.write() as connection:
            connection.execute(text("ALTER TABLE totals RENAME TO elsewhere"))
        away = [page_of(collector) for _ in range(2)]
        with ledger.database.write() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO totals"))
        assert value(page_of(collector), "compactor_ledger_up") == 1
    for page in away:
        assert samples(page) == {("compactor_ledger_up", frozenset()): 0}
        assert "elsewhere" not in page
        assert "totals" not in page
    assert [record.message.partition(":")[0] for record in caplog.records] == ["no figures", "the ledger is back"]


def test_a_ledger_without_a_schema_is_not_up_and_a_bad_policy_file_costs_the_intervals_alone(
    database_url: str, tmp_path: Path
) -> None:
    with collecting(database_url, tmp_path) as collector:
        assert value(page_of(collector), "compactor_ledger_up") == 0
        with closing(Database(database_url)) as database:
            upgrade(database)
        (tmp_path / "policy.toml").write_text("[policies")
        page = page_of(collector)
        assert value(page, "compactor_ledger_up") == 1
        assert value(page, "compactor_schedule_interval_seconds") is None


def test_a_database_that_cannot_be_reached_is_not_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        collecting("postgresql://u:marked-passw0rd@127.0.0.1:1/ledger", tmp_path) as collector,
        caplog.at_level(logging.WARNING),
    ):
        assert samples(page_of(collector)) == {("compactor_ledger_up", frozenset()): 0}
    assert "is not available" in caplog.text
    assert "marked" not in caplog.text


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"COMPACTOR_METRICS_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[3]), **environment}
    argv = [sys.executable, "-m", "ops.metrics"]
    popen = subprocess.Popen(argv, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        yield popen, f"http://127.0.0.1:{port}/metrics"
    finally:
        popen.kill()
        popen.communicate()


def first_page(url: str, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return httpx.get(url, timeout=10).raise_for_status().text
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("it serves no page")


def test_the_process_serves_the_page_and_ends_at_sigterm(ledger: Ledger, database_url: str, tmp_path: Path) -> None:
    closed(ledger, State.SUCCEEDED)
    with serving(tmp_path, COMPACTOR_DATABASE_URL=database_url) as (process, url):
        page = first_page(url, process)
        assert value(page, "compactor_compactions_total") == 1
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert "Traceback" not in said


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path, sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with serving(tmp_path, COMPACTOR_DATABASE_URL=sqlite_url, COMPACTOR_METRICS_PORT=port) as (process, _):
            _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith("compactor: COMPACTOR_METRICS_HOST, COMPACTOR_METRICS_PORT: cannot listen on 127.0.0.1:")
    assert "Traceback" not in said
