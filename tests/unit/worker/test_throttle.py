"""Limits and breakers: down at once, up slowly, and one probe at a time while a model is in doubt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rows import NOW
from worker.throttle import DEFAULT_PAUSE, FAILURES_TO_OPEN, FIRST_OPEN, LONGEST_OPEN, Breaker, Throttle

FULL = Throttle(most=16, limit=16.0)


def failed(times: int, throttle: Throttle = FULL) -> Throttle:
    for _ in range(times):
        throttle = throttle.failed(NOW)
    return throttle


@pytest.mark.parametrize(("under_way", "admitted"), [(0, True), (15, True), (16, False), (17, False)])
def test_there_is_room_up_to_the_limit(under_way: int, *, admitted: bool) -> None:
    assert FULL.admits(under_way, NOW) is admitted


def test_a_limit_between_two_numbers_is_the_lower_one() -> None:
    assert Throttle(most=16, limit=2.9).admits(1, NOW)
    assert not Throttle(most=16, limit=2.9).admits(2, NOW)


def test_a_setting_that_was_lowered_holds_at_once_whatever_the_limit_was() -> None:
    assert not Throttle(most=2, limit=16.0).admits(2, NOW)
    assert Throttle(most=2, limit=16.0).pushed_back(NOW, None).limit == 1.0
    assert Throttle(most=2, limit=16.0).succeeded().limit == 2.0


def test_each_push_back_halves_the_limit_down_to_one() -> None:
    throttle, limits = FULL, []
    for _ in range(6):
        throttle = throttle.pushed_back(NOW, 1.0)
        limits.append(throttle.limit)
    assert limits == [8, 4, 2, 1, 1, 1]


@pytest.mark.parametrize(("said", "pause"), [(None, DEFAULT_PAUSE), (90.0, timedelta(seconds=90)), (0.0, timedelta())])
def test_nothing_begins_before_the_server_wants_it(said: float | None, pause: timedelta) -> None:
    throttle = FULL.pushed_back(NOW, said)
    assert throttle.paused_until == NOW + pause
    assert throttle.admits(0, NOW + pause)
    assert pause == timedelta() or not throttle.admits(0, NOW + pause - timedelta(seconds=1))


def test_a_shorter_wish_does_not_shorten_a_pause() -> None:
    assert FULL.pushed_back(NOW, 90.0).pushed_back(NOW, 1.0).paused_until == NOW + timedelta(seconds=90)


@pytest.mark.parametrize("start", [1, 4, 10])
def test_about_a_limits_worth_of_successes_raises_it_by_one(start: int) -> None:
    throttle = Throttle(most=16, limit=float(start))
    for _ in range(start):
        throttle = throttle.succeeded()
    assert start + 0.8 < throttle.limit <= start + 1


def test_the_breaker_opens_after_failures_in_a_row_and_not_before() -> None:
    assert failed(FAILURES_TO_OPEN - 1).breaker(NOW) is Breaker.CLOSED
    assert failed(FAILURES_TO_OPEN).breaker(NOW) is Breaker.OPEN
    assert not failed(FAILURES_TO_OPEN).admits(0, NOW)


def test_a_success_in_between_begins_the_count_anew() -> None:
    throttle = failed(FAILURES_TO_OPEN - 1, failed(FAILURES_TO_OPEN - 1).succeeded())
    assert throttle.breaker(NOW) is Breaker.CLOSED


def test_a_half_open_breaker_lets_one_probe_through_and_no_second() -> None:
    later = NOW + FIRST_OPEN
    throttle = failed(FAILURES_TO_OPEN)
    assert throttle.breaker(later - timedelta(seconds=1)) is Breaker.OPEN
    assert throttle.breaker(later) is Breaker.HALF_OPEN
    assert throttle.admits(0, later)
    assert not throttle.admits(1, later)


def test_each_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    throttle, now, waits = failed(FAILURES_TO_OPEN), NOW, []
    for _ in range(9):
        assert throttle.open_until is not None
        waits.append(throttle.open_until - now)
        now = throttle.open_until
        throttle = throttle.failed(now)
    assert waits == [min(FIRST_OPEN * 2**n, LONGEST_OPEN) for n in range(9)]
    assert waits[-1] == LONGEST_OPEN


def test_failures_while_it_is_open_do_not_keep_it_open_longer() -> None:
    opened = failed(FAILURES_TO_OPEN)
    assert failed(3, opened).open_until == opened.open_until


def test_a_probe_that_succeeds_closes_the_breaker_and_forgets_its_openings() -> None:
    opened = failed(FAILURES_TO_OPEN)
    assert opened.open_until is not None
    closed = opened.failed(opened.open_until).succeeded()
    assert (closed.breaker(NOW), closed.failures_in_row, closed.openings) == (Breaker.CLOSED, 0, 0)
    assert failed(FAILURES_TO_OPEN, closed).open_until == NOW + FIRST_OPEN


EVENTS = st.lists(
    st.tuples(st.sampled_from(["success", "failure", "push"]), st.floats(0, 7200), st.none() | st.floats(0, 86_400)),
    max_size=60,
)


@given(st.integers(1, 10_000), st.floats(1, 10_000), EVENTS)
def test_whatever_happens_the_limit_stays_in_its_bounds_and_some_day_there_is_room(
    most: int, limit: float, events: list[tuple[str, float, float | None]]
) -> None:
    throttle, now = Throttle(most=most, limit=min(limit, float(most))), NOW
    for what, seconds, retry_after in events:
        now += timedelta(seconds=seconds)
        before = throttle
        match what:
            case "success":
                throttle = throttle.succeeded()
                assert before.limit <= throttle.limit <= before.limit + 1
            case "push":
                throttle = throttle.pushed_back(now, retry_after)
                assert throttle.limit == max(before.limit / 2, 1)
                assert throttle.paused_until is not None
                assert throttle.paused_until >= (before.paused_until or now)
            case _:
                throttle = throttle.failed(now)
                assert throttle.limit == before.limit
        assert 1 <= throttle.limit <= most
        assert throttle.open_until is None or throttle.open_until <= now + LONGEST_OPEN
    assert throttle.admits(0, now + timedelta(days=1))
