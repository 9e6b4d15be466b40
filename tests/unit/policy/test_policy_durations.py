"""Durations in words, and the delays that grow."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from worker.policy.delays import LONGEST as LONGEST_DELAY
from worker.policy.delays import after_failure, after_refusal, before_retry
from worker.policy.durations import Duration, parse_duration

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("2d", 2 * DAY),
        ("1w", 7 * DAY),
        ("0s", timedelta()),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize("value", ["", "30", "m", "1.5h", "-5m", "5 minutes", "1h30", "5M", None, True, [], "٣mx"])
def test_what_is_no_duration_is_refused_with_examples(value: object) -> None:
    with pytest.raises(ValueError, match="write one such as"):
        parse_duration(value)


@pytest.mark.parametrize(("value", "said"), [(30, '"30s" or "30m"'), (1.5, '"1.5s" or "1.5m"')])
def test_a_bare_number_is_refused_with_the_units_it_may_mean(value: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_duration(value)


@pytest.mark.parametrize("text", ["3651d", "99999999w", "9" * 400 + "s"])
def test_a_duration_beyond_ten_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than 3650 days"):
        parse_duration(text)


@given(st.integers(0, 3650 * 86_400).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_duration_that_was_written_down_reads_again_as_it_was(span: timedelta) -> None:
    adapter = TypeAdapter(Duration)
    assert adapter.validate_python(adapter.dump_python(span, mode="json")) == span


def test_refusals_put_off_for_six_hours_and_twice_as_long_each_time_up_to_a_week() -> None:
    assert [after_refusal(times) for times in range(1, 8)] == [
        6 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        4 * DAY,
        7 * DAY,
        7 * DAY,
    ]


def test_failures_put_off_for_minutes_then_an_hour_then_days() -> None:
    assert [after_failure(times) for times in range(1, 8)] == [
        timedelta(minutes=15),
        HOUR,
        DAY,
        2 * DAY,
        4 * DAY,
        7 * DAY,
        7 * DAY,
    ]


@given(st.integers(1, 10**9))
def test_no_delay_shrinks_or_passes_a_week(times: int) -> None:
    for delay in (after_refusal, after_failure):
        assert timedelta() < delay(times) <= delay(times + 1) <= LONGEST_DELAY


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_retry_waits_a_share_of_a_bound_that_doubles(attempt: int, chance: float) -> None:
    bound = before_retry(attempt, 1.0)
    assert timedelta(seconds=5) <= bound <= timedelta(minutes=10)
    assert timedelta() <= before_retry(attempt, chance) <= bound
    assert before_retry(1, 1.0) == timedelta(seconds=10)
