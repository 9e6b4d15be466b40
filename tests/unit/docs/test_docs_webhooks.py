"""What the README says of webhooks, held against the code."""

from __future__ import annotations

from datetime import timedelta

from scheduler.door.description import TAKING
from scheduler.door.reading import LIMIT
from tests.unit.docs.generated import README
from tests.unit.docs.markdown import section, tables
from worker.audit import announcer
from worker.audit.records import EventState
from worker.policy.delays import JITTER, REDELIVERIES
from worker.policy.watch import FAR
from worker.webhooks.courier import TIMEOUT

PAGE = README.read_text(encoding="utf-8")
WEBHOOKS = " ".join(section(PAGE, "Webhooks").split())
UNITS = ((timedelta(hours=1), "h"), (timedelta(minutes=1), "min"), (timedelta(seconds=1), "s"))


def spelled(span: timedelta) -> str:
    unit, name = next((unit, name) for unit, name in UNITS if span >= unit)
    return f"{span // unit} {name}"


def test_each_answer_to_a_webhook_has_one_row() -> None:
    rows = tables(section(PAGE, "From anyone else"))["status"]
    assert [int(status) for status, _ in rows] == sorted({202, *map(int, TAKING)})
    assert f"longer than {LIMIT // 1024} KiB" in WEBHOOKS


def test_each_state_of_an_event_has_one_row() -> None:
    rows = tables(section(PAGE, "What comes of an event"))["event"]
    assert [state for state, _ in rows] == list(EventState)


def test_each_type_of_outgoing_webhook_has_one_row() -> None:
    rows = tables(section(PAGE, "To others"))["type"]
    told = {announcer.SUCCEEDED, announcer.FAILED, announcer.MESSAGES_DROPPED, announcer.SCAN_FINISHED}
    assert {name for name, _ in rows} == told


def test_the_waits_between_deliveries_are_the_codes() -> None:
    *waits, last = map(spelled, REDELIVERIES)
    assert f"tried again after {', '.join(waits)} and {last}, each up to a fifth longer" in WEBHOOKS
    assert JITTER == 1 / 5
    assert len(REDELIVERIES) == 9
    assert "After the tenth attempt" in WEBHOOKS
    assert f"2xx within {TIMEOUT:g} s" in WEBHOOKS


def test_how_far_under_the_trigger_a_step_is_out_of_the_question_is_the_codes() -> None:
    assert f"more than {FAR:.2f} below the trigger" in WEBHOOKS
