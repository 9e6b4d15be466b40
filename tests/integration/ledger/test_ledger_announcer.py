"""What is told to others is written by the transaction that makes it true: both are there, or neither."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.happenings import ENDPOINTS, announcing, told
from tests.support.rows import CLOSING, INTENT, NOW, OTHER, OWNER, STEPS, begun, claimed, closed, everything, later
from worker.audit.compactions import LostClaim
from worker.audit.deliveries import Delivery
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction, State

SECRETS = ("What was said.", "answer, verbatim")


def intended(ledger: Ledger) -> Compaction:
    row = claimed(ledger)
    ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=NOW, lease=timedelta(minutes=5))
    body = json.dumps({"summary": SECRETS[0], "x": SECRETS[1]})
    ledger.compactions.keep_answer(row.id, body, owner=OWNER, now=NOW, lease=timedelta(minutes=5))
    return row


def body(delivery: Delivery) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(delivery.body)
    return read


def test_a_success_is_told_to_each_endpoint_with_its_proof(ledger: Ledger) -> None:
    row = intended(ledger)
    announcing(ledger).compactions.succeed(row, CLOSING, owner=OWNER, now=later(seconds=9))
    deliveries = told(ledger)
    assert [(one.type, one.endpoint) for one in deliveries] == [
        ("compaction.succeeded", endpoint) for endpoint in ENDPOINTS
    ]
    assert len({one.id for one in deliveries}) == 2
    first = deliveries[0]
    assert first.id.startswith("msg-")
    assert (first.subject_id, first.state, first.next_at, first.attempts) == (row.id, "pending", later(seconds=9), 0)
    told_of = body(first)
    assert set(told_of) == {"type", "timestamp", "data"}
    assert told_of["type"] == "compaction.succeeded"
    assert datetime.fromisoformat(told_of["timestamp"]) == later(seconds=9)
    data = told_of["data"]
    assert (data["id"], data["agent_id"], data["conversation_id"]) == (row.id, row.agent_id, "conv-1")
    assert (data["state"], data["outcome"], data["trigger"]) == ("succeeded", "compacted", "schedule")
    assert (data["tokens_before"], data["tokens_after"]) == (12_500, 6_000)
    assert (data["usage_before"], data["usage_after"]) == (0.78125, 0.375)
    assert (data["num_messages_before"], data["num_messages_after"]) == (43, 19)
    assert (data["flags"], data["recovered"], data["error"]) == (["target_missed"], False, None)
    assert (data["messages_dropped"], data["scan_id"]) == ([], None)
    assert datetime.fromisoformat(data["planned_at"]) == NOW
    assert datetime.fromisoformat(data["finished_at"]) == later(seconds=9)


def test_neither_the_summary_nor_the_servers_answer_is_told_unless_wanted(ledger: Ledger) -> None:
    announcing(ledger, ENDPOINTS[0]).compactions.succeed(intended(ledger), CLOSING, owner=OWNER, now=NOW)
    [delivery] = told(ledger)
    assert [secret for secret in SECRETS if secret in delivery.body] == []
    assert "summary" not in body(delivery)["data"]


def test_the_summary_is_told_where_the_setting_says_so_and_still_not_the_answer(ledger: Ledger) -> None:
    telling = announcing(ledger, ENDPOINTS[0], with_summary=True)
    said = replace(CLOSING, summary="What was said: 你好")
    telling.compactions.succeed(intended(ledger), said, owner=OWNER, now=NOW)
    [delivery] = told(ledger)
    assert body(delivery)["data"]["summary"] == "What was said: 你好"
    assert delivery.body.isascii()
    assert SECRETS[1] not in delivery.body


def test_dropped_messages_are_told_beside_the_success(ledger: Ledger) -> None:
    dropped = replace(CLOSING, ids_dropped=("message-7", "message-8"))
    announcing(ledger, ENDPOINTS[0]).compactions.succeed(intended(ledger), dropped, owner=OWNER, now=NOW)
    deliveries = told(ledger)
    assert [one.type for one in deliveries] == ["compaction.messages_dropped", "compaction.succeeded"]
    for one in deliveries:
        assert body(one)["type"] == one.type
        assert body(one)["data"]["messages_dropped"] == ["message-7", "message-8"]


def test_a_failure_is_told_with_its_error_and_a_refusal_is_not_told(ledger: Ledger) -> None:
    telling = announcing(ledger, ENDPOINTS[0])
    closed(telling, State.REFUSED, "conv-1")
    assert told(ledger) == []
    failed = closed(telling, State.FAILED, "conv-2")
    [delivery] = told(ledger)
    assert (delivery.type, delivery.subject_id) == ("compaction.failed", failed)
    data = body(delivery)["data"]
    assert (data["outcome"], data["error"], data["usage_after"]) == ("http_500", "it broke", None)


def test_a_closing_that_is_rolled_back_leaves_nothing_to_tell(ledger: Ledger) -> None:
    telling = announcing(ledger)
    row = claimed(telling)
    before = everything(ledger)

    def broken(in_row: int) -> timedelta:
        raise ArithmeticError(f"no delay for {in_row}")

    with pytest.raises(ArithmeticError):
        telling.compactions.fail(row, "http_500", "it broke", owner=OWNER, now=NOW, delay=broken)
    with pytest.raises(LostClaim):
        telling.compactions.succeed(row, CLOSING, owner=OTHER, now=NOW)
    assert everything(ledger) == before


def test_a_delivery_that_cannot_be_written_leaves_the_compaction_open(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = announcing(ledger)
    row = claimed(telling)
    before = everything(ledger)

    def broken(*_: object, **__: object) -> str:
        raise ArithmeticError("no body")

    monkeypatch.setattr(json, "dumps", broken)
    with pytest.raises(ArithmeticError):
        telling.compactions.succeed(row, CLOSING, owner=OWNER, now=NOW)
    monkeypatch.undo()
    assert everything(ledger) == before


def test_a_step_that_closes_nothing_tells_nothing(ledger: Ledger) -> None:
    telling = announcing(ledger)
    for number, step in enumerate(("intend", "keep_answer", "release", "leave")):
        STEPS[step](telling, claimed(telling, f"conv-{number}"), OWNER, NOW)
    assert told(ledger) == []


def test_without_endpoints_nothing_is_written(ledger: Ledger) -> None:
    for number, state in enumerate((State.SUCCEEDED, State.FAILED)):
        closed(ledger, state, f"conv-{number}")
    ledger.scans.fail(begun(ledger).id, "the list broke", now=NOW)
    assert told(ledger) == []


def test_a_scans_end_is_told_once_with_its_counts(ledger: Ledger) -> None:
    telling = announcing(ledger, ENDPOINTS[0])
    scan = begun(telling)
    assert telling.scans.finish(scan.id, now=NOW) is None
    assert told(ledger) == []
    telling.scans.add_page(
        scan.id, owner=OWNER, candidates=[], listed=3, reasons={"empty": 3}, lease_until=later(hours=1)
    )
    telling.scans.end_listing(scan.id, owner=OWNER)
    assert telling.scans.finish(scan.id, now=later(minutes=1)) is not None
    assert telling.scans.finish(scan.id, now=later(minutes=2)) is None
    [delivery] = told(ledger)
    assert (delivery.type, delivery.subject_id) == ("scan.finished", scan.id)
    data = body(delivery)["data"]
    assert (data["state"], data["listed"], data["reasons"]) == ("finished", 3, {"empty": 3})
    assert (data["schedule"], data["trigger"], data["policy"]) == ("nightly", "schedule", "default")
    assert datetime.fromisoformat(data["finished_at"]) == later(minutes=1)


def test_a_scan_that_fails_is_told_once_and_a_skipped_one_is_not(ledger: Ledger) -> None:
    telling = announcing(ledger, ENDPOINTS[0])
    scan = begun(telling)
    with pytest.raises(AssertionError):
        begun(telling)
    assert told(ledger) == []
    telling.scans.fail(scan.id, "the list broke", now=NOW)
    telling.scans.fail(scan.id, "the list broke again", now=NOW)
    [delivery] = told(ledger)
    assert (body(delivery)["data"]["state"], body(delivery)["data"]["sentence"]) == ("failed", "the list broke")
