"""What the tasks tell operators: one line each, the telling part first, nothing that is only for the ledger."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from celery.utils.saferepr import saferepr

from worker.audit.database import LedgerUnavailable
from worker.audit.records import Compaction, HandedOut, Scan, ScanState, State
from worker.telemetry.taskevents import told
from worker.telemetry.telling import ANSWERED, TaskFailed, Told, counts_line, order_line, outcome_line, scan_line

ORDER = HandedOut("cmp-1", "agent-2", "conv-1", "schedule", "nightly", 0.834, 0.399)


def row(state: State, **values: Any) -> Compaction:
    known: dict[str, Any] = {field.name: None for field in fields(Compaction)}
    known |= {"id": "cmp-1", "agent_id": "agent-2", "conversation_id": "conv-1", "state": state, "flags": []}
    return Compaction(**known | {"summary": "what was said", "attempts": 2} | values)


def scan(state: ScanState, **values: Any) -> Scan:
    known: dict[str, Any] = {field.name: None for field in fields(Scan)}
    return Scan(**known | {"id": "scan-1", "state": state, "listed": 47, "pages": 2} | values)


def test_an_order_names_the_conversation_its_agent_its_trigger_and_what_is_expected() -> None:
    assert order_line(ORDER) == "nightly, usage 0.83: conv-1 of agent-2 (0.40 expected)"
    by_hand = replace(ORDER, conversation_id="default", schedule=None, trigger="cli", usage_before=None)
    assert order_line(by_hand) == "cli, usage ?: default of agent-2 (0.40 expected)"


def test_a_success_tells_usage_and_messages_before_and_after() -> None:
    done = row(
        State.SUCCEEDED,
        outcome="compacted",
        usage_before=0.83,
        usage_after=0.381,
        num_messages_before=43,
        num_messages_after=19,
    )
    assert outcome_line(done, "compacted") == "compacted: usage 0.83 → 0.38, 43 → 19 messages (conv-1)"
    wiped = replace(done, outcome="recovered", flags=["full_wipe", "target_missed"], usage_after=None)
    line = "recovered: full_wipe, target_missed: usage 0.83 → ?, 43 → 19 messages (conv-1)"
    assert outcome_line(wiped, "recovered") == line


def test_a_refusal_tells_its_outcome_and_its_reason() -> None:
    refused = row(State.REFUSED, outcome="not_idle", error="the last message is 3s old")
    assert outcome_line(refused, "not_idle") == "refused: not_idle: the last message is 3s old"


def test_a_failure_fails_the_task_with_its_line_without_the_call() -> None:
    failed = row(State.FAILED, outcome="http_500", error="POST /v1/conversations/conv-1/compact: answered 500: no")
    with pytest.raises(TaskFailed) as caught:
        outcome_line(failed, "http_500")
    assert repr(caught.value) == "failed: http_500: answered 500: no"
    assert repr(pickle.loads(pickle.dumps(caught.value))) == repr(caught.value)  # noqa: S301 - our own


@pytest.mark.parametrize("state", [State.RUNNING, State.FAILED, State.REFUSED, State.PLANNED])
def test_what_the_server_answered_is_for_the_ledger_alone(state: State) -> None:
    quoted = row(state, outcome="retries_spent", error=f'its answer was lost{ANSWERED}{{"summary": "what was said')
    try:
        line = outcome_line(quoted, "left")
    except TaskFailed as error:
        line = str(error)
    assert line.endswith("its answer was lost")


def test_a_reason_takes_one_line_of_at_most_300_characters() -> None:
    line = outcome_line(row(State.REFUSED, outcome="not_found", error="gone\nfor " + "ever " * 200), "not_found")
    assert line.startswith("refused: not_found: gone for ever ever")
    assert len(line) == len("refused: not_found: ") + 300


def test_an_open_row_tells_what_it_waits_for() -> None:
    due = datetime(2026, 11, 23, 3, 0, 5, tzinfo=UTC)
    back = row(State.PLANNED, error="answered 503", not_before=due)
    assert outcome_line(back, "released") == "put back after attempt 2, again from 03:00:05 UTC on: answered 503"
    assert outcome_line(row(State.RUNNING, error="no answer"), "left") == "left to the sweep: no answer"


@pytest.mark.parametrize(("word", "line"), [("not_due", "nothing done"), ("taken_over", "left alone")])
def test_a_run_that_did_nothing_never_passes_for_a_failure(word: str, line: str) -> None:
    assert outcome_line(row(State.FAILED, outcome="error", error="x"), word) == f"{line}: cmp-1 is failed"


def test_a_scan_tells_how_far_it_is_and_fails_its_task_where_it_failed() -> None:
    assert scan_line(scan(ScanState.RUNNING)) == "47 conversations listed, 2 pages to measure (scan-1)"
    assert scan_line(scan(ScanState.SKIPPED, sentence="still running")) == "skipped: still running"
    with pytest.raises(TaskFailed, match=r"^failed: no connection$"):
        scan_line(scan(ScanState.FAILED, sentence="no connection"))


def test_counts_are_told_the_largest_first() -> None:
    assert counts_line({"below_trigger": 5, "over_trigger": 8}) == "8 over_trigger, 5 below_trigger"


def test_celery_shows_a_told_line_as_it_is() -> None:
    assert saferepr(Told("compacted: 43 → 19")) == "compacted: 43 → 19"


def test_errors_written_for_operators_are_told_and_others_by_their_kind_alone() -> None:
    assert told(TaskFailed("failed: no_gain: x")) == "failed: no_gain: x"
    assert told(LedgerUnavailable("the ledger is away")) == "the ledger is away"
    line = "ValueError, a fault of the service itself: the worker's log has the traceback"
    assert told(ValueError("a key, a summary")) == line
