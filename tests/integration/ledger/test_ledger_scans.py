"""Scans and their pages: one run of a schedule at a time, every page measured and counted once."""

import pytest

from tests.support.race import RACERS, race
from tests.support.rows import (
    AGENT,
    LEASE,
    NOW,
    OTHER,
    OWNER,
    SCAN,
    begun,
    everything,
    later,
    paged,
    planned,
    scan,
    seen,
    skipped,
)
from worker.audit.ledger import Ledger
from worker.audit.records import Scan, ScanState
from worker.audit.scans import LostScan, Page


def done(ledger: Ledger, scan_id: str, number: int, **reasons: int) -> bool:
    """Claim a page and finish it."""
    assert ledger.scans.claim_page(scan_id, number, now=NOW, owner=OWNER, lease=LEASE) is not None
    return ledger.scans.finish_page(scan_id, number, owner=OWNER, reasons=reasons, now=NOW, lease=LEASE)


def finished(ledger: Ledger, **changes: object) -> Scan:
    """A scan that listed nothing and is closed."""
    began = begun(ledger, **changes)  # type: ignore[arg-type]
    ledger.scans.end_listing(began.id, owner=OWNER)
    closed = ledger.scans.finish(began.id, now=later(seconds=3))
    assert closed is not None
    return closed


def test_a_scan_begins_with_the_policy_as_it_stands(ledger: Ledger) -> None:
    began = begun(ledger)
    assert began == scan(ledger, began.id)
    assert (began.trigger, began.schedule, began.policy, began.policy_version) == (
        "schedule",
        "nightly",
        "default",
        "0123456789ab",
    )
    assert (began.policy_body, began.reasons) == ({"trigger_usage": 0.7}, {})
    assert (began.state, began.started_at, began.lease_owner) == (ScanState.RUNNING, NOW, OWNER)
    assert (began.pages, began.listed, began.planned, began.listing_done) == (0, 0, 0, False)


def test_a_tick_that_finds_the_last_scan_running_is_recorded_and_skipped(ledger: Ledger) -> None:
    began = begun(ledger)
    second, opened = ledger.scans.begin(SCAN, now=later(minutes=15), owner=OTHER, lease=LEASE)
    assert not opened
    assert (second.state, second.started_at, second.finished_at) == (
        ScanState.SKIPPED,
        later(minutes=15),
        later(minutes=15),
    )
    assert second.sentence == "the last scan of schedule nightly is still running"
    assert second == scan(ledger, second.id)
    assert scan(ledger, began.id).state == ScanState.RUNNING


def test_of_eight_ticks_at_once_one_runs_and_seven_are_recorded_as_skipped(ledger: Ledger) -> None:
    rows = race(lambda number: ledger.scans.begin(SCAN, now=NOW, owner=f"worker-{number}", lease=LEASE))
    assert [opened for _, opened in rows].count(True) == 1
    assert sorted(row.state for row, _ in rows) == ["running"] + ["skipped"] * (RACERS - 1)
    assert len({row.id for row, _ in rows}) == RACERS


def test_a_schedule_runs_again_when_its_last_scan_is_over(ledger: Ledger) -> None:
    finished(ledger)
    began = begun(ledger, now=later(days=1))
    ledger.scans.fail(began.id, "the server is away", now=later(days=1))
    assert begun(ledger, now=later(days=2)).state == ScanState.RUNNING


def test_another_schedule_does_not_wait(ledger: Ledger) -> None:
    begun(ledger)
    assert begun(ledger, schedule="pressure").state == ScanState.RUNNING


def test_scans_asked_for_by_hand_never_stand_in_each_others_way(ledger: Ledger) -> None:
    assert begun(ledger, schedule=None, trigger="cli").id != begun(ledger, schedule=None, trigger="cli").id


def test_pages_are_numbered_and_what_was_left_out_is_counted(ledger: Ledger) -> None:
    began = begun(ledger)
    assert paged(ledger, began.id, "conv-1", "conv-2", empty=3, cooldown=1) == 1
    assert paged(ledger, began.id, empty=2) is None
    assert paged(ledger, began.id, "conv-3") == 2
    told = scan(ledger, began.id)
    assert (told.pages, told.listed, told.reasons) == (2, 9, {"empty": 5, "cooldown": 1})
    assert ledger.scans.open_pages(began.id, now=NOW) == [1, 2]
    assert ledger.scans.pages_left(began.id) == 2


@pytest.mark.parametrize("end", ["taken over", "closed", "unknown"])
def test_a_worker_that_lost_its_scan_puts_nothing_down_any_more(ledger: Ledger, end: str) -> None:
    began = begun(ledger)
    if end == "taken over":
        assert ledger.scans.take(began.id, now=NOW + LEASE, owner=OTHER, lease=LEASE) is not None
    if end == "closed":
        ledger.scans.fail(began.id, "given up", now=NOW)
    scan_id = "scan-unknown" if end == "unknown" else began.id
    before = everything(ledger)
    with pytest.raises(LostScan, match=scan_id):
        paged(ledger, scan_id, "conv-1")
    with pytest.raises(LostScan, match=scan_id):
        ledger.scans.end_listing(scan_id, owner=OWNER)
    assert everything(ledger) == before


def test_a_scan_is_taken_up_only_when_nobody_is_at_it(ledger: Ledger) -> None:
    began = begun(ledger)
    assert ledger.scans.take(began.id, now=later(minutes=4), owner=OTHER, lease=LEASE) is None
    taken = ledger.scans.take(began.id, now=NOW + LEASE, owner=OTHER, lease=LEASE)
    assert taken is not None
    assert (taken.lease_owner, taken.lease_until) == (OTHER, NOW + LEASE + LEASE)


def test_a_scan_begun_for_a_worker_is_taken_up_at_once_and_by_one_alone(ledger: Ledger) -> None:
    began, _ = ledger.scans.begin(SCAN, now=NOW)
    taken = race(lambda number: ledger.scans.take(began.id, now=NOW, owner=f"worker-{number}", lease=LEASE))
    assert len([row for row in taken if row is not None]) == 1


def test_a_scan_whose_listing_is_done_or_that_is_closed_is_not_listed_again(ledger: Ledger) -> None:
    began = begun(ledger)
    ledger.scans.end_listing(began.id, owner=OWNER)
    assert ledger.scans.take(began.id, now=later(days=1), owner=OTHER, lease=LEASE) is None
    ledger.scans.finish(began.id, now=NOW)
    assert ledger.scans.take(began.id, now=later(days=1), owner=OTHER, lease=LEASE) is None
    assert ledger.scans.take("scan-unknown", now=NOW, owner=OTHER, lease=LEASE) is None


def test_of_eight_workers_one_measures_a_page(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    pages = race(lambda number: ledger.scans.claim_page(began.id, 1, now=NOW, owner=f"w-{number}", lease=LEASE))
    got = [page for page in pages if page is not None]
    assert got == [Page(began.id, 1, [{"agent_id": AGENT, "conversation_id": "conv-1"}], attempts=1)]


def test_a_dead_workers_page_is_measured_by_another_and_counted_once(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    assert ledger.scans.claim_page(began.id, 1, now=NOW, owner=OWNER, lease=LEASE) is not None
    assert ledger.scans.open_pages(began.id, now=NOW + LEASE) == []
    late = later(minutes=6)
    assert ledger.scans.open_pages(began.id, now=late) == [1]
    assert ledger.scans.claim_page(began.id, 1, now=late, owner=OTHER, lease=LEASE) is not None
    again = ledger.scans.claim_page(began.id, 1, now=later(minutes=12), owner=OTHER, lease=LEASE)
    assert again is not None
    assert again.attempts == 3
    counts = {"below_trigger": 1}
    assert not ledger.scans.finish_page(began.id, 1, owner=OWNER, reasons=counts, now=late, lease=LEASE)
    assert ledger.scans.finish_page(began.id, 1, owner=OTHER, reasons=counts, now=late, lease=LEASE)
    assert not ledger.scans.finish_page(began.id, 1, owner=OTHER, reasons=counts, now=late, lease=LEASE)
    assert scan(ledger, began.id).reasons == counts


def test_a_page_that_is_done_or_unknown_is_nobodys(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    assert done(ledger, began.id, 1)
    assert ledger.scans.claim_page(began.id, 1, now=later(days=1), owner=OTHER, lease=LEASE) is None
    assert ledger.scans.claim_page(began.id, 2, now=NOW, owner=OTHER, lease=LEASE) is None


def test_eight_pages_finished_at_once_are_all_counted(ledger: Ledger) -> None:
    began = begun(ledger)
    for number in range(RACERS):
        paged(ledger, began.id, f"conv-{number}", empty=1)
    assert all(race(lambda number: done(ledger, began.id, number + 1, over_trigger=1, below_trigger=number)))
    assert scan(ledger, began.id).reasons == {"empty": RACERS, "over_trigger": RACERS, "below_trigger": 28}
    assert ledger.scans.pages_left(began.id) == 0


def test_a_scan_is_finished_once_and_not_before_its_listing_and_pages_are_done(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    assert ledger.scans.finish(began.id, now=NOW) is None
    ledger.scans.end_listing(began.id, owner=OWNER)
    assert ledger.scans.finish(began.id, now=NOW) is None
    assert done(ledger, began.id, 1)
    ended = race(lambda _: ledger.scans.finish(began.id, now=later(seconds=9)))
    told = [row for row in ended if row is not None]
    assert len(told) == 1
    assert (told[0].state, told[0].finished_at, told[0].lease_owner) == (ScanState.FINISHED, later(seconds=9), None)


def test_a_failed_scan_says_why_and_a_closed_one_does_not_fail_any_more(ledger: Ledger) -> None:
    began = begun(ledger)
    ledger.scans.fail(began.id, "the conversations could not be listed", now=later(seconds=1))
    ledger.scans.fail(began.id, "another reason", now=later(seconds=2))
    told = scan(ledger, began.id)
    assert (told.state, told.sentence) == (ScanState.FAILED, "the conversations could not be listed")
    assert told.finished_at == later(seconds=1)
    over = finished(ledger, schedule="pressure")
    ledger.scans.fail(over.id, "too late", now=later(seconds=4))
    assert scan(ledger, over.id) == over


def test_a_resumed_scan_knows_what_it_has_listed_already(ledger: Ledger) -> None:
    began, other = begun(ledger), begun(ledger, schedule="pressure")
    ledger.conversations.record([skipped("conv-skipped", scan_id=began.id)], now=NOW)
    ledger.conversations.record([skipped("conv-elsewhere", scan_id=other.id)], now=NOW)
    paged(ledger, began.id, "conv-waiting", "conv-measured")
    planned(ledger, "conv-planned", seen=seen("conv-planned", scan_id=began.id))
    assert ledger.scans.listed_already(began.id) == {
        (AGENT, "conv-skipped"),
        (AGENT, "conv-waiting"),
        (AGENT, "conv-measured"),
        (AGENT, "conv-planned"),
    }
    assert ledger.scans.listed_already("scan-unknown") == set()


def test_a_measured_page_is_still_known_by_what_was_recorded_of_it(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    ledger.conversations.record([skipped("conv-1", scan_id=began.id)], now=NOW)
    assert done(ledger, began.id, 1, empty=1)
    assert ledger.scans.listed_already(began.id) == {(AGENT, "conv-1")}


def test_a_scan_is_stuck_when_nothing_was_heard_of_it_for_its_lease(ledger: Ledger) -> None:
    began = begun(ledger)
    assert ledger.scans.stuck(now=later(minutes=4)) == []
    assert ledger.scans.stuck(now=NOW + LEASE) == [began.id]
    paged(ledger, began.id, "conv-1")
    late = later(minutes=30)
    ledger.scans.claim_page(began.id, 1, now=late, owner=OWNER, lease=LEASE)
    ledger.scans.finish_page(began.id, 1, owner=OWNER, reasons={}, now=late, lease=LEASE)
    assert ledger.scans.stuck(now=late) == []
    ledger.scans.fail(began.id, "given up", now=late)
    assert ledger.scans.stuck(now=later(days=1)) == []


def test_the_latest_scans_come_first(ledger: Ledger) -> None:
    ids = [finished(ledger, now=later(minutes=number)).id for number in range(3)]
    assert [row.id for row in ledger.scans.recent(2)] == [ids[2], ids[1]]
    assert ledger.scans.get("scan-unknown") is None


def test_a_listing_that_is_let_go_is_taken_up_at_once(ledger: Ledger) -> None:
    began = begun(ledger)
    ledger.scans.let_go(began.id, owner=OWNER)
    assert ledger.scans.stuck(now=NOW) == [began.id]
    assert ledger.scans.take(began.id, now=NOW, owner=OTHER, lease=LEASE) is not None


def test_a_page_that_is_let_go_is_measured_by_another_at_once(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    ledger.scans.end_listing(began.id, owner=OWNER)
    assert ledger.scans.claim_page(began.id, 1, now=NOW, owner=OTHER, lease=LEASE) is not None
    ledger.scans.let_go(began.id, owner=OTHER, number=1)
    assert ledger.scans.stuck(now=NOW) == [began.id]
    assert ledger.scans.open_pages(began.id, now=NOW) == [1]


def test_letting_a_page_go_does_not_stop_another_workers_listing(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    assert ledger.scans.claim_page(began.id, 1, now=NOW, owner=OTHER, lease=LEASE) is not None
    ledger.scans.let_go(began.id, owner=OTHER, number=1)
    assert ledger.scans.open_pages(began.id, now=NOW) == [1]
    assert paged(ledger, began.id, "conv-2") == 2


def test_nobody_lets_go_of_what_is_another_workers(ledger: Ledger) -> None:
    began = begun(ledger)
    paged(ledger, began.id, "conv-1")
    assert ledger.scans.claim_page(began.id, 1, now=NOW, owner=OWNER, lease=LEASE) is not None
    before = everything(ledger)
    ledger.scans.let_go(began.id, owner=OTHER, number=1)
    ledger.scans.let_go(began.id, owner=OTHER)
    assert everything(ledger) == before
