"""What an answer says about the server or its model becomes a limit, a pause or a failure, of the right one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bench import POLICY, Bench, bench
from tests.support.rows import NOW
from worker import compaction
from worker.audit.records import State
from worker.audit.throttles import FLEET
from worker.contract.compaction import CompactionSettings
from worker.throttle import FAILURES_TO_OPEN, Breaker, Throttle

MODEL = "openai/small"
WITH_MODEL = POLICY.model_copy(update={"compaction": CompactionSettings(model=MODEL)})


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, COMPACTOR_MAX_IN_FLIGHT="8", COMPACTOR_MAX_IN_FLIGHT_PER_MODEL="4") as service:
        yield service


def planned(at: Bench) -> str:
    id_ = at.plan(WITH_MODEL)
    with at.service.ledger.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE compactions SET model = '{MODEL}'")  # noqa: S608
    return id_


def answer(at: Bench, status: int, **options: Any) -> str:
    """Run one compaction whose POST is answered so."""
    at.letta.answers["compact"] = lambda _: httpx.Response(status, **options)
    return compaction.run(at.service, planned(at))


def throttle(at: Bench, handle: str) -> Throttle | None:
    return at.service.ledger.throttles.all(at.service.limits).get(handle)


def of_the_model(kind: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no", "detail": ""}}


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_less_slows_the_whole_fleet_for_as_long_as_it_says(at: Bench, status: int) -> None:
    assert answer(at, status, json={"detail": "slow down"}, headers={"Retry-After": "90"}) == "released"
    fleet, model = throttle(at, FLEET), throttle(at, MODEL)
    assert fleet is not None
    assert model is not None
    assert (fleet.limit, fleet.paused_until) == (4, NOW + timedelta(seconds=90))
    assert (model.limit, model.paused_until, model.failures_in_row) == (4, None, 0)


def test_a_row_that_was_told_to_wait_is_not_due_before(at: Bench) -> None:
    id_ = planned(at)
    at.letta.answers["compact"] = lambda _: httpx.Response(429, json={}, headers={"Retry-After": "90"})
    compaction.run(at.service, id_)
    assert (at.row(id_).not_before or NOW) >= NOW + timedelta(seconds=90)
    assert at.outbox.sent[0][1] >= 90
    at.time.passes(89)
    assert compaction.run(at.service, id_) == "not_due"


def test_a_models_own_limit_slows_that_model_alone(at: Bench) -> None:
    assert answer(at, 429, json=of_the_model("llm_rate_limit")) == "released"
    fleet, model = throttle(at, FLEET), throttle(at, MODEL)
    assert fleet is not None
    assert model is not None
    assert (model.limit, fleet.limit, fleet.paused_until) == (2, 8, None)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, of_the_model("llm_error")), (401, of_the_model("llm_authentication")), (502, {"detail": "bad gateway"})],
)
def test_a_broken_model_or_server_counts_as_a_failure_of_the_model(at: Bench, status: int, body: Any) -> None:
    answer(at, status, json=body)
    model = throttle(at, MODEL)
    assert model is not None
    assert (model.failures_in_row, model.limit, model.breaker(NOW)) == (1, 4, Breaker.CLOSED)


@pytest.mark.parametrize(("status", "detail"), [(404, "gone"), (409, "busy"), (422, "no"), (400, "no")])
def test_an_answer_about_the_conversation_alone_changes_no_limit(at: Bench, status: int, detail: str) -> None:
    answer(at, status, json={"detail": detail})
    model = throttle(at, MODEL)
    assert model is not None
    assert (model.failures_in_row, model.limit, model.paused_until) == (0, 4, None)


def test_failures_in_a_row_open_the_breaker_and_say_so(at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    model = None
    for number in range(FAILURES_TO_OPEN):
        at.letta.answers["compact"] = lambda _: httpx.Response(500, json=of_the_model("llm_error"))
        id_ = planned(at)
        assert compaction.run(at.service, id_) == "left"
        row = at.row(id_)
        at.service.ledger.compactions.take_over(
            id_, now=at.time.now() + timedelta(hours=1), owner="x", lease=timedelta(hours=1)
        )
        at.service.ledger.compactions.refuse(row, "x", "x", owner="x", now=at.time.now(), delay=None)
        model = throttle(at, MODEL)
        assert model is not None
        assert model.failures_in_row == number + 1
    assert model is not None
    assert model.breaker(NOW) is Breaker.OPEN
    assert f"the model {MODEL} failed {FAILURES_TO_OPEN} times in a row" in caplog.text
    assert compaction.run(at.service, planned(at)) == "not_due"


def test_a_success_closes_the_breaker_and_raises_both_limits_a_little(at: Bench) -> None:
    for handle in (FLEET, MODEL):
        at.service.ledger.throttles.change(handle, at.service.limits, lambda now: replace(now, limit=2.0, openings=3))
    assert compaction.run(at.service, planned(at)) == "compacted"
    for handle in (FLEET, MODEL):
        changed = throttle(at, handle)
        assert changed is not None
        assert (changed.limit, changed.openings) == (2.5, 0)


def test_whoever_ends_hands_out_what_waits_for_room(at: Bench) -> None:
    first, waiting = planned(at), at.plan(conversation_id="conv-2")
    assert compaction.run(at.service, first) == "compacted"
    assert at.outbox.sent == [(waiting, 0)]
    assert at.row(waiting).state == State.PLANNED
