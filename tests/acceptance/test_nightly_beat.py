"""The nightly pass as it runs at night: beat ticks, workers compact, the ledger proves it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.sandbox import Sandbox
from tests.support.service import Service, deployed, wait_until
from worker.audit.ledger import Ledger
from worker.audit.records import Scan, ScanState

TRIGGER, TARGET = 0.70, 0.40

FIELDS = {
    *("id", "conversation_id", "agent_id", "state", "trigger", "scan_id", "policy", "policy_version", "settings"),
    *("usage_source", "usage_before", "usage_after", "num_messages_before", "num_messages_after", "summary", "flags"),
    *("error", "attempts", "planned_at", "started_at", "finished_at", "response"),
}
"""What an export promises at least."""

PASS_SECONDS = 90.0

StartSandbox = Callable[..., Sandbox]


def policy(*, every: str, trigger: float = TRIGGER, more: str = "") -> str:
    return f"""
[policies.default]
trigger_usage = {trigger}
target_usage = {TARGET}
min_messages = 6
idle_for = "30m"
cooldown = "1h"

[schedules.nightly]
policy = "default"
every = "{every}"
{more}
"""


@contextmanager
def looking(service: Service) -> Iterator[Ledger]:
    ledger = service.ledger()
    try:
        yield ledger
    finally:
        ledger.close()


def scans(service: Service, state: str | None = None) -> list[Scan]:
    """The scans so far, the newest first."""
    with looking(service) as ledger:
        return [scan for scan in ledger.scans.recent(1000) if state is None or scan.state == state]


def write(service: Service, text: str) -> None:
    """Replace the policy file as an editor does."""
    fresh = service.folder / "policy.new"
    fresh.write_text(text)
    os.replace(fresh, service.folder / "policy.toml")


def key(row: dict[str, Any]) -> str:
    """Name a row's conversation as the sandbox does."""
    return f"default:{row['agent_id']}" if row["conversation_id"] == "default" else str(row["conversation_id"])


def one_more_pass(service: Service, passes: int = 1) -> None:
    """Wait until so many scans that begin from now on have ended."""
    seen = {scan.id for scan in scans(service)}
    wait_until(
        lambda: len([scan for scan in scans(service, ScanState.FINISHED) if scan.id not in seen]) >= passes,
        PASS_SECONDS,
        service.logs,
    )


def test_beats_tick_compacts_what_is_due_once_and_every_row_agrees_with_the_server(
    sandbox: StartSandbox, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    server = sandbox(seed=40)
    with deployed(
        tmp_path,
        letta_url=server.base_url,
        broker_url=redis_url,
        database_url=database_url,
        policy=policy(every="3s"),
    ) as service:
        worker, beat = service.worker(), service.beat()
        wait_until(lambda: bool(scans(service, ScanState.FINISHED)), PASS_SECONDS, service.logs)
        wait_until(service.all_closed, PASS_SECONDS, service.logs)
        rows = service.export()
        one_more_pass(service, passes=2)
        assert service.export() == rows
        known = {(row.agent_id, row.conversation_id): row for row in _known(service)}
        assert (beat.stop(), worker.stop()) == (0, 0)
        assert "Traceback" not in service.logs()

    counts = server.compactions()
    assert {key(row) for row in rows} == {name for name, count in counts.items() if count["requests"]}
    for row in rows:
        assert set(row) >= FIELDS
        _agrees(row, counts[key(row)])
    compacted = {(row["agent_id"], row["conversation_id"]) for row in rows}
    left_alone = [row for where, row in known.items() if where not in compacted]
    assert len(left_alone) + len(compacted) == 40 + len(server.get("/v1/agents/", limit=100))
    assert {row.reason for row in left_alone} == {"unchanged", "not_idle", "empty", "too_few_messages", "below_trigger"}
    assert all(row.usage is None or row.usage < TRIGGER for row in left_alone)
    assert server.requests()["POST /v1/conversations/{conversation_id}/compact"] == len(rows)


def _known(service: Service) -> list[Any]:
    with looking(service) as ledger:
        return list(ledger.conversations.listing(limit=None))


def _agrees(row: dict[str, Any], count: dict[str, Any]) -> None:
    """Hold a row against what the server counted and kept of the same compaction."""
    assert (row["state"], row["trigger"], row["attempts"], row["flags"]) == ("succeeded", "schedule", 1, [])
    assert (count["requests"], count["effective"], count["refused"]) == (1, 1, 0)
    [entry] = count["history"]
    assert (row["ids_before"], row["ids_after"]) == (entry["before_ids"], entry["after_ids"])
    assert (row["num_messages_before"], row["num_messages_after"]) == (len(row["ids_before"]), len(row["ids_after"]))
    assert {name: entry["settings"][name] for name in row["settings"]} == row["settings"]
    assert row["mode_used"] == entry["mode_used"] == "sliding_window"
    assert row["usage_before"] >= TRIGGER
    assert row["usage_after"] <= TARGET
    assert row["usage_source"] == "context_overview"
    assert row["policy"] == "default"
    assert row["planned_at"] <= row["started_at"] <= row["finished_at"]
    response = json.loads(row["response"])
    assert response["summary"] == row["summary"]
    assert response["num_messages_after"] == row["num_messages_after"]
    assert row["error"] is None


def test_two_beats_and_two_workers_compact_nothing_twice(
    sandbox: StartSandbox, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    server = sandbox(seed=40, compact_latency=0.3)
    with deployed(
        tmp_path, letta_url=server.base_url, broker_url=redis_url, database_url=database_url, policy=policy(every="1s")
    ) as service:
        service.beat()
        service.beat()
        service.worker()
        service.worker()
        wait_until(service.all_closed, PASS_SECONDS, service.logs)
        one_more_pass(service, passes=3)
        rows, seen = service.rows(), scans(service)
        assert "Traceback" not in service.logs()
    assert {row.state for row in rows} == {"succeeded"}
    assert len({(row.agent_id, row.conversation_id) for row in rows}) == len(rows)
    assert [count["effective"] for count in server.compactions().values() if count["requests"]] == [1] * len(rows)
    assert {scan.state for scan in seen} <= {ScanState.RUNNING, ScanState.FINISHED, ScanState.SKIPPED}
    assert {(scan.trigger, scan.schedule) for scan in seen} == {("schedule", "nightly")}


def test_a_tick_that_finds_the_same_schedules_scan_running_is_recorded_as_skipped(
    sandbox: StartSandbox, redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    server = sandbox(seed=8, latency=2.0)
    with deployed(
        tmp_path, letta_url=server.base_url, broker_url=redis_url, database_url=sqlite_url, policy=policy(every="1s")
    ) as service:
        service.worker()
        service.beat()
        wait_until(lambda: bool(scans(service, ScanState.SKIPPED)), PASS_SECONDS, service.logs)
        skipped = scans(service, ScanState.SKIPPED)[-1]
        assert skipped.sentence == "the last scan of schedule nightly is still running"
        assert (skipped.listed, skipped.planned) == (0, 0)
        assert skipped.finished_at is not None
        server.set_latency(latency=0)
        one_more_pass(service)
        wait_until(service.all_closed, PASS_SECONDS, service.logs)
    assert all(count["effective"] == 1 for count in server.compactions().values() if count["requests"])


def test_the_policy_file_may_change_while_the_service_runs_and_a_bad_one_changes_nothing_but_the_log(
    sandbox: StartSandbox, redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    server = sandbox(seed=8)
    with deployed(
        tmp_path, letta_url=server.base_url, broker_url=redis_url, database_url=sqlite_url, policy=policy(every="1s")
    ) as service:
        worker, beat = service.worker(), service.beat()
        one_more_pass(service)
        good = scans(service)[0].policy_version

        write(service, policy(every="1s", trigger=7))
        problem = "policies.default.trigger_usage: must be less than or equal to 1"
        for process in (worker, beat):
            wait_until(lambda process=process: problem in process.text(), PASS_SECONDS, service.logs)  # type: ignore[misc]
            assert "policy.toml" in process.text()
            assert "the last good one stays in force" in process.text()
        one_more_pass(service)
        assert scans(service)[0].policy_version == good

        second = '[schedules.second]\npolicy = "default"\nevery = "1s"'
        write(service, policy(every="1s", trigger=0.99, more=second))
        wait_until(lambda: scans(service)[0].policy_version != good, PASS_SECONDS, service.logs)
        assert scans(service)[0].policy_body["trigger_usage"] == 0.99
        wait_until(lambda: any(scan.schedule == "second" for scan in scans(service)), PASS_SECONDS, service.logs)
        assert "Traceback" not in service.logs()
        assert (beat.stop(), worker.stop()) == (0, 0)


def test_an_idle_worker_ends_with_status_0_at_sigterm(
    sandbox: StartSandbox, redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    with deployed(tmp_path, letta_url=sandbox().base_url, broker_url=redis_url, database_url=sqlite_url) as service:
        worker = service.worker()
        assert worker.stop() == 0
        assert "Traceback" not in worker.text()
