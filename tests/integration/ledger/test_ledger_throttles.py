"""The fleet's limits, breakers and safety copies, where every worker sees them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.rows import (
    AGENT,
    LEASE,
    NOW,
    OWNER,
    STEPS,
    claimed,
    compaction,
    later,
    planned,
    raw,
)
from worker.audit.compactions import LostClaim
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction
from worker.audit.throttles import FLEET, Limits
from worker.throttle import FAILURES_TO_OPEN, Breaker, Throttle

LIMITS = Limits(fleet=3, model=2)
WIDE = Limits(fleet=100, model=100)


def planned_with(ledger: Ledger, model: str | None, number: int) -> str:
    settings = {"mode": "sliding_window"} | ({} if model is None else {"model": model})
    return planned(ledger, f"conv-{model}-{number}".replace("/", "-"), settings=settings)


def claim(ledger: Ledger, id_: str, limits: Limits = LIMITS, owner: str = OWNER) -> Compaction | None:
    return ledger.compactions.claim(id_, now=NOW, owner=owner, lease=LEASE, limits=limits)


def test_a_row_knows_the_model_that_will_summarize_it(ledger: Ledger) -> None:
    assert compaction(ledger, planned_with(ledger, "openai/gpt-4.1", 0)).model == "openai/gpt-4.1"
    assert compaction(ledger, planned_with(ledger, None, 0)).model == ""


def test_a_row_that_is_not_there_or_not_planned_finds_no_room_either(ledger: Ledger) -> None:
    assert claim(ledger, "cmp-unknown") is None
    row = claimed(ledger)
    before = raw(ledger, row.id)
    assert claim(ledger, row.id) is None
    assert raw(ledger, row.id) == before


def test_pushed_back_nothing_begins_until_the_pause_is_over_and_then_half_as_much(ledger: Ledger) -> None:
    changed = ledger.throttles.change(FLEET, Limits(8, 8), lambda throttle: throttle.pushed_back(NOW, 60))
    assert (changed.limit, changed.paused_until) == (4, later(minutes=1))
    id_ = planned(ledger)
    assert ledger.compactions.claim(id_, now=later(seconds=59), owner=OWNER, lease=LEASE, limits=WIDE) is None
    assert ledger.compactions.claim(id_, now=later(seconds=60), owner=OWNER, lease=LEASE, limits=WIDE) is not None


def test_an_open_breaker_stops_its_own_model_alone(ledger: Ledger) -> None:
    for _ in range(FAILURES_TO_OPEN):
        ledger.throttles.change("m/1", LIMITS, lambda throttle: throttle.failed(NOW))
    assert ledger.throttles.open_handles(NOW, LIMITS).keys() == {"m/1"}
    assert claim(ledger, planned_with(ledger, "m/1", 0)) is None
    assert claim(ledger, planned_with(ledger, "m/2", 0)) is not None
    assert ledger.throttles.all(LIMITS)["m/1"].breaker(later(hours=1)) is Breaker.HALF_OPEN
    assert ledger.throttles.open_handles(later(hours=1), LIMITS) == {}


def test_a_limit_is_the_configured_one_until_something_happened(ledger: Ledger) -> None:
    assert ledger.throttles.all(LIMITS) == {}
    unchanged = ledger.throttles.change("m/1", LIMITS, lambda throttle: throttle)
    assert unchanged == Throttle(most=2, limit=2)
    assert ledger.throttles.all(replace(LIMITS, model=5))["m/1"] == Throttle(most=5, limit=2)


def test_a_safety_copy_is_known_until_its_time_and_removed_once(ledger: Ledger) -> None:
    row = claimed(ledger)
    copies = ledger.safety_copies
    for number, days in ((1, 7), (2, 3)):
        copies.made(f"conv-copy-{number}", agent_id=AGENT, compaction_id=row.id, now=NOW, keep_until=later(days=days))
    assert copies.among(["conv-1", "conv-copy-1", "conv-copy-2"]) == {"conv-copy-1", "conv-copy-2"}
    assert copies.among([]) == set()
    assert copies.due(now=later(days=3) - timedelta(seconds=1), limit=9) == []
    assert copies.due(now=later(days=7), limit=9) == ["conv-copy-2", "conv-copy-1"]
    copies.removed("conv-copy-2", now=later(days=7))
    assert copies.due(now=later(days=7), limit=9) == ["conv-copy-1"]
    assert copies.among(["conv-copy-2"]) == {"conv-copy-2"}


def test_a_claim_that_was_lost_while_waiting_for_room_stays_lost(ledger: Ledger) -> None:
    row = claim(ledger, planned(ledger))
    assert row is not None
    ledger.compactions.take_over(row.id, now=later(minutes=6), owner="worker-b", lease=LEASE)
    with pytest.raises(LostClaim):
        STEPS["succeed"](ledger, row, OWNER, NOW)
