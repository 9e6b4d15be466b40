"""Planning: a decision becomes a row, once for a conversation, and no more often than the scan may."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from tests.support.race import RACERS, race
from tests.support.rows import (
    AGENT,
    LEASE,
    MEASURED,
    NOW,
    OWNER,
    STEPS,
    begun,
    claimed,
    closed,
    compaction,
    everything,
    later,
    order,
    planned,
    scan,
    seen,
    unset,
)
from worker.audit.ledger import Ledger
from worker.audit.planning import Planning
from worker.audit.records import CLOSED_STATES, State


def test_a_planned_row_holds_everything_that_was_decided(ledger: Ledger) -> None:
    began = begun(ledger)
    row = compaction(ledger, planned(ledger, seen=seen(scan_id=began.id), asked=True))
    assert row.id.startswith("cmp-")
    assert (row.agent_id, row.conversation_id, row.state) == (AGENT, "conv-1", State.PLANNED)
    assert (row.trigger, row.scan_id, row.asked) == ("schedule", began.id, True)
    assert (row.policy, row.policy_version, row.policy_body) == ("default", "0123456789ab", {"trigger_usage": 0.7})
    assert (row.reason, row.sentence) == ("over_trigger", "over it")
    assert row.settings == {"mode": "sliding_window", "sliding_window_percentage": 0.3}
    assert (row.window, row.tokens_before, row.usage_before) == (16_000, 12_000, 0.75)
    assert (row.usage_source, row.num_messages_before, row.usage_expected) == ("context_overview", 41, 0.38)
    assert (row.flags, row.attempts, row.planned_at) == ([], 0, NOW)
    assert unset(row.lease_owner, row.started_at, row.finished_at, row.response, row.ids_before)


def test_planning_writes_the_conversation_too(ledger: Ledger) -> None:
    compaction_id = planned(ledger)
    known = ledger.conversations.known([(AGENT, "conv-1")])[AGENT, "conv-1"]
    assert known.open_compaction == compaction_id
    assert (known.conversation.usage, known.conversation.decision) == (0.75, "compact")
    assert known.conversation.measured_activity == NOW


def test_a_conversation_that_was_not_measured_can_be_planned(ledger: Ledger) -> None:
    row = compaction(ledger, planned(ledger, seen=seen(measured=None)))
    assert unset(row.usage_before, row.window, row.num_messages_before)


def test_an_open_row_stands_in_the_way_of_another(ledger: Ledger) -> None:
    first = planned(ledger)
    assert ledger.compactions.plan(order(), now=later(hours=1)) == Planning("in_progress", first)


def test_a_running_row_stands_in_the_way_as_well(ledger: Ledger) -> None:
    row = claimed(ledger)
    assert ledger.compactions.plan(order(), now=later(hours=1)) == Planning("in_progress", row.id)


@pytest.mark.parametrize("state", CLOSED_STATES)
def test_a_closed_row_stands_in_nobodys_way(ledger: Ledger, state: State) -> None:
    closed(ledger, state)
    assert ledger.compactions.plan(order(), now=later(hours=1)).outcome == "planned"


def test_a_default_conversation_of_each_agent_is_another(ledger: Ledger) -> None:
    planned(ledger, "default")
    other = order(seen=replace(seen("default"), agent_id="agent-2"))
    assert ledger.compactions.plan(other, now=NOW).outcome == "planned"


def test_of_eight_planners_at_once_exactly_one_wins(ledger: Ledger) -> None:
    plannings = race(lambda _: ledger.compactions.plan(order(), now=NOW))
    winners = [planning for planning in plannings if planning.outcome == "planned"]
    assert len(winners) == 1
    assert [planning.outcome for planning in plannings].count("in_progress") == RACERS - 1
    assert {planning.compaction_id for planning in plannings} == {winners[0].compaction_id}


def test_planners_of_different_conversations_do_not_disturb_each_other(ledger: Ledger) -> None:
    plannings = race(lambda number: ledger.compactions.plan(order(f"conv-{number}"), now=NOW))
    assert {planning.outcome for planning in plannings} == {"planned"}
    assert len({planning.compaction_id for planning in plannings}) == RACERS


def test_what_stood_in_the_way_leaves_nothing_half_written(ledger: Ledger) -> None:
    planned(ledger)
    before = everything(ledger)
    ledger.compactions.plan(order(seen=seen(sentence="another")), now=later(hours=1))
    assert everything(ledger) == before


def test_a_scan_plans_no_more_than_its_budget_however_many_plan_at_once(ledger: Ledger) -> None:
    began = begun(ledger)
    plannings = race(
        lambda number: ledger.compactions.plan(
            order(f"conv-{number}", seen=seen(f"conv-{number}", scan_id=began.id), budget=3), now=NOW
        )
    )
    assert sorted(planning.outcome for planning in plannings) == ["over_budget"] * (RACERS - 3) + ["planned"] * 3
    assert all(planning.compaction_id is None for planning in plannings if planning.outcome == "over_budget")
    assert scan(ledger, began.id).planned == 3
    assert len(everything(ledger)["compactions"]) == 3


def test_a_planning_that_lost_gives_its_share_of_the_budget_back(ledger: Ledger) -> None:
    began = begun(ledger)
    planned(ledger)
    ledger.compactions.plan(order(seen=seen(scan_id=began.id), budget=3), now=NOW)
    assert scan(ledger, began.id).planned == 0


def test_an_order_for_a_scan_that_is_not_in_the_ledger_is_an_error_and_no_race_lost(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError):
        ledger.compactions.plan(order(seen=seen(scan_id="scan-unknown")), now=NOW)
    assert everything(ledger)["compactions"] == []


def test_planning_again_after_a_success_keeps_the_first_row(ledger: Ledger) -> None:
    first = claimed(ledger)
    STEPS["succeed"](ledger, first, OWNER, NOW)
    second = planned(ledger, now=later(hours=7), seen=seen(measured=replace(MEASURED, tokens=13_000)))
    assert compaction(ledger, first.id).usage_before == 0.75
    assert compaction(ledger, second).usage_before == pytest.approx(0.8125)


def test_planned_rows_without_a_message_are_found_until_one_was_sent(ledger: Ledger) -> None:
    first, second = planned(ledger, "conv-1"), planned(ledger, "conv-2", now=later(seconds=1))
    find = {"patience": LEASE, "limit": 10}
    assert ledger.open_rows.unclaimed(now=NOW, patience=LEASE, limit=10) == [first, second]
    assert ledger.open_rows.unclaimed(now=NOW, patience=LEASE, limit=1) == [first]
    ledger.compactions.enqueued([first], now=NOW)
    assert ledger.open_rows.unclaimed(now=NOW, patience=LEASE, limit=10) == [second]
    # Nobody took it within the patience: its message is taken for lost.
    assert ledger.open_rows.unclaimed(now=later(minutes=6), **find) == [first, second]  # type: ignore[arg-type]


def test_rows_that_are_not_due_or_not_planned_are_not_missed(ledger: Ledger) -> None:
    row = claimed(ledger)
    assert ledger.open_rows.unclaimed(now=later(days=1), patience=LEASE, limit=10) == []
    ledger.compactions.release(row.id, "busy", owner=OWNER, not_before=later(hours=1))
    assert ledger.open_rows.unclaimed(now=later(minutes=59), patience=LEASE, limit=10) == []
    assert ledger.open_rows.unclaimed(now=later(hours=1), patience=LEASE, limit=10) == [row.id]
