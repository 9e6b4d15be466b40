"""Cron expressions: what is accepted means the same to this service and to Celery's beat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from celery import Celery
from celery.schedules import crontab
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.policy.cron import parse_cron, shortest_gap

NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]

APP = Celery("cron", set_as_current=False)
APP.conf.update(timezone="UTC")


@st.composite
def terms(draw: st.DrawFn, field: int) -> str:
    """One term of a field, of every form that some cron knows; most of them are accepted."""
    low, high = LIMITS[field]
    form = draw(st.sampled_from(["*", "value", "name", "range", "names", "*/", "range/", "value/"]))
    step = f"/{draw(st.integers(1, high + 2))}" if form.endswith("/") else ""
    first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    names = NAMES.get(field)
    if form in {"name", "names"} and names:
        some = names[first % len(names)], names[last % len(names)]
        return some[0] if form == "name" else "-".join(some)
    if form.startswith("range"):
        return f"{first}-{last}{step}"
    return ("*" if form.startswith("*") else str(first)) + step


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """An expression of five fields."""
    fields = [",".join(draw(st.lists(terms(field), min_size=1, max_size=2))) for field in range(5)]
    fields[draw(st.sampled_from([2, 4]))] = "*"
    return " ".join(fields)


def accepted_or_none(expression: str) -> str | None:
    try:
        return parse_cron(expression)
    except ValueError:
        return None


moments = st.datetimes(datetime(2023, 1, 1), datetime(2032, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def beat_ticks(expression: str, start: datetime, count: int) -> list[datetime]:
    """The next ticks as Celery's beat finds them, one after the other."""
    ticks, last = [], start
    for _ in range(count):
        schedule = crontab.from_string(expression)
        schedule.app = APP
        vars(schedule)["nowfun"] = lambda now=last: now
        last = last + schedule.remaining_estimate(last)
        ticks.append(last)
    return ticks


@settings(max_examples=400)
@given(expressions(), moments)
@example("0 3 * * 7", datetime(2026, 1, 1, tzinfo=UTC))
@example("5/10 * * * *", datetime(2026, 1, 1, tzinfo=UTC))
@example("5-5/10 * * * *", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 29 2 *", datetime(2026, 1, 1, tzinfo=UTC))
def test_an_accepted_expression_is_accepted_by_beat_and_ticks_at_the_same_times(
    expression: str, start: datetime
) -> None:
    accepted = accepted_or_none(expression)
    if accepted is None:
        return
    ours = CronSim(accepted, start)
    expected = [next(ours) for _ in range(4)]
    assert [tick.replace(second=0, microsecond=0) for tick in beat_ticks(accepted, start, 4)] == expected


@pytest.mark.parametrize(
    "expression",
    [
        "0 3 * * *",
        "*/15 8-18 * * mon-fri",
        "0 0 1 jan *",
        "5,35 */2 * * 0,6",
        "0 22 1-7 * *",
        "59 23 31 12 *",
        "0 8-18/2 * * *",
        "0 12 * FEB Sun",
    ],
)
def test_a_usual_expression_is_accepted_as_it_stands(expression: str) -> None:
    assert parse_cron(expression) == expression
    assert crontab.from_string(expression)


def test_spaces_do_not_matter() -> None:
    assert parse_cron("  0   3 *\t* * ") == "0 3 * * *"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (3, "in quotes"),
        ("", "five fields"),
        ("@daily", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("0 3 * * ?", "five fields"),
        ("0 3 * * fri#1", "five fields"),
        ("0 3 L * *", "L or W"),
        ("0 3 * * 5L", "L or W"),
        ("0 3 15W * *", "L or W"),
        ("60 3 * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 3 0 * *", "bad day-of-month"),
        ("0 3 * 13 *", "bad month"),
        ("0 3 * * 8", "bad day-of-week"),
        ("0 3 * * monday", "bad day-of-week"),
        ("0 3 30 2 *", "bad day-of-month"),
        ("0 22-4 * * *", "bad hour"),
        ("*/0 * * * *", "bad minute"),
        ("-5 * * * *", "bad minute"),
        ("5/10 * * * *", "write */15 or 8-18/2"),
        ("5-5/10 * * * *", "write */15 or 8-18/2"),
        ("0 3 * * 7", "write 0 or sun"),
        ("0 3 * * 5-7", "write 0 or sun"),
        ("0 3 1 * mon", "use two schedules"),
        ("0 3 */2 * */2", "use two schedules"),
    ],
)
def test_another_is_refused_with_what_to_write(expression: object, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_cron(expression)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "gap"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0,10 * * * *", timedelta(minutes=10)),
        ("0 3 * * *", timedelta(days=1)),
        ("0 3 * * mon-fri", timedelta(days=1)),
        ("0 3 * * 6,0", timedelta(days=1)),
        ("0 3 * * mon", timedelta(days=7)),
        ("0 3 1 * *", timedelta(days=28)),
        ("0 3 1 1 *", timedelta(days=365)),
        ("0 3 29 2 *", timedelta(days=366)),
        ("0 3,4 1 * *", timedelta(hours=1)),
    ],
)
def test_the_shortest_gap_between_two_ticks_is_found(expression: str, gap: timedelta) -> None:
    assert shortest_gap(expression) == gap


@given(expressions())
def test_no_two_ticks_are_closer_than_the_shortest_gap(expression: str) -> None:
    accepted = accepted_or_none(expression)
    if accepted is None:
        return
    ticks = CronSim(accepted, datetime(2025, 6, 1, tzinfo=UTC))
    first = [next(ticks) for _ in range(50)]
    assert shortest_gap(accepted) <= min(later - earlier for earlier, later in pairwise(first))
