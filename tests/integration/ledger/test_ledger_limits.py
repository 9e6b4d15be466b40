"""Limits hold for the whole fleet: the counting and the claim are one transaction, whoever races for the last place."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

from tests.support.race import RACERS, race
from tests.support.rows import LEASE, NOW, STEPS, compaction, later, order, planned
from worker.audit.ledger import Ledger
from worker.audit.records import State
from worker.audit.reports import Wanted
from worker.audit.throttles import FLEET, Limits
from worker.throttle import FAILURES_TO_OPEN

LIMITS = Limits(fleet=5, model=3)


def rows_of(ledger: Ledger, model: str, count: int) -> list[str]:
    settings = dict(order().settings) | {"model": model}
    return [planned(ledger, f"{model or 'own'}-{number}", settings=settings) for number in range(count)]


def running(ledger: Ledger, model: str | None = None) -> int:
    rows = ledger.reports.compactions(Wanted(state=State.RUNNING), limit=None)
    return len([row for row in rows if model is None or row.model == model])


def claim(ledger: Ledger, id_: str, *, limits: Limits = LIMITS, seconds: float = 0) -> bool:
    row = ledger.compactions.claim(id_, now=later(seconds=seconds), owner="me", lease=LEASE, limits=limits)
    return row is not None


def test_racing_claims_never_pass_a_models_limit(ledger: Ledger) -> None:
    ids = rows_of(ledger, "openai/small", RACERS)
    assert sum(race(lambda number: claim(ledger, ids[number]))) == LIMITS.model
    assert running(ledger) == LIMITS.model


def test_racing_claims_of_several_models_never_pass_the_fleets_limit(ledger: Ledger) -> None:
    ids = [rows_of(ledger, f"openai/{number}", 1)[0] for number in range(RACERS)]
    assert sum(race(lambda number: claim(ledger, ids[number]))) == LIMITS.fleet
    assert running(ledger) == LIMITS.fleet


def test_at_no_moment_of_a_long_run_is_more_under_way_than_the_limits_say(ledger: Ledger) -> None:
    models = ("openai/a", "openai/b")
    todo = [id_ for model in models for id_ in rows_of(ledger, model, 12)]
    seen, over = list[tuple[int, int, int]](), threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append((running(ledger), running(ledger, models[0]), running(ledger, models[1])))
            time.sleep(0.001)

    def work(number: int) -> int:
        done, deadline = 0, time.monotonic() + 60
        mine = todo[number::RACERS]
        while mine and time.monotonic() < deadline:
            id_ = mine.pop(0)
            if claim(ledger, id_):
                STEPS["succeed"](ledger, compaction(ledger, id_), "me", NOW)
                done += 1
            else:
                mine.append(id_)
        return done

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert sum(race(work)) == len(todo)
    finally:
        over.set()
        watcher.join()
    assert max(total for total, _, _ in seen) <= LIMITS.fleet
    assert max(count for _, *each in seen for count in each) <= LIMITS.model


def test_a_row_that_finds_no_room_waits_as_if_it_had_never_been_handed_out(ledger: Ledger) -> None:
    first, second = rows_of(ledger, "openai/small", 2)
    ledger.compactions.enqueued([first, second], now=NOW)
    one = Limits(fleet=1, model=1)
    assert claim(ledger, first, limits=one)
    assert not claim(ledger, second, limits=one)
    waiting = compaction(ledger, second)
    assert (waiting.state, waiting.enqueued_at, waiting.attempts) == (State.PLANNED, None, 0)
    assert ledger.open_rows.waiting(now=NOW, limit=10) == [second]
    STEPS["succeed"](ledger, compaction(ledger, first), "me", NOW)
    assert claim(ledger, second, limits=one)


def test_a_row_left_to_be_looked_at_still_takes_its_place_as_the_server_may_be_at_it(ledger: Ledger) -> None:
    first, second = rows_of(ledger, "openai/small", 2)
    one = Limits(fleet=5, model=1)
    assert claim(ledger, first, limits=one)
    STEPS["leave"](ledger, compaction(ledger, first), "me", NOW)
    assert not claim(ledger, second, limits=one)


def test_the_agents_own_summarizer_has_a_limit_of_its_own(ledger: Ledger) -> None:
    ids = rows_of(ledger, "", 4)
    assert [claim(ledger, id_) for id_ in ids] == [True, True, True, False]
    assert claim(ledger, rows_of(ledger, "openai/small", 1)[0])


def test_a_paused_fleet_begins_nothing_and_a_paused_model_holds_up_no_other(ledger: Ledger) -> None:
    small, large = rows_of(ledger, "openai/small", 1)[0], rows_of(ledger, "openai/large", 1)[0]
    ledger.throttles.change("openai/small", LIMITS, lambda throttle: throttle.pushed_back(NOW, 30))
    assert not claim(ledger, small, seconds=29)
    assert claim(ledger, large, seconds=29)
    ledger.throttles.change(FLEET, LIMITS, lambda throttle: throttle.pushed_back(NOW, 60))
    assert not claim(ledger, small, seconds=59)
    assert claim(ledger, small, seconds=60)


def test_of_eight_that_race_to_probe_a_broken_model_one_may(ledger: Ledger) -> None:
    ids = rows_of(ledger, "openai/small", RACERS)
    for _ in range(FAILURES_TO_OPEN):
        ledger.throttles.change("openai/small", LIMITS, lambda throttle: throttle.failed(NOW))
    assert list(ledger.throttles.open_handles(NOW, LIMITS)) == ["openai/small"]
    assert not any(race(lambda number: claim(ledger, ids[number], seconds=59)))
    assert sum(race(lambda number: claim(ledger, ids[number], seconds=60))) == 1
    assert ledger.throttles.open_handles(later(seconds=60), LIMITS) == {}


def test_changes_that_race_are_all_counted(ledger: Ledger) -> None:
    race(lambda _: ledger.throttles.change("openai/small", LIMITS, lambda throttle: throttle.failed(NOW)))
    assert ledger.throttles.all(LIMITS)["openai/small"].failures_in_row == RACERS


def test_a_limit_that_the_operator_raised_is_what_it_may_grow_to(ledger: Ledger) -> None:
    ledger.throttles.change(FLEET, LIMITS, lambda throttle: throttle.pushed_back(NOW - timedelta(hours=1), 1))
    ids = [rows_of(ledger, f"openai/{number}", 1)[0] for number in range(4)]
    more = Limits(fleet=50, model=50)
    assert [claim(ledger, id_, limits=more) for id_ in ids] == [True, True, False, False]
    for _ in range(3):
        ledger.throttles.change(FLEET, more, lambda throttle: throttle.succeeded())
    assert claim(ledger, ids[2], limits=more)
