"""Cron expressions: the five fields that beat and this service read alike."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_FIELD = re.compile(r"[0-9a-zA-Z*,/-]+")
_FORMS = 'write "minute hour day-of-month month day-of-week", such as "0 3 * * *" or "*/15 8-18 * * mon-fri"'
FIELDS = 5
_SAMPLES = 400
"""Ticks looked at for the shortest gap: more than a year of daily ones."""

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def parse_cron(expression: object) -> str:
    """Check a cron expression and give it back with single spaces.

    Raises ValueError that says what is wrong. Refused, though some crons know them: seconds, `L`, `W`, `#`, `@daily`,
    a Sunday that is 7, a step that is not of `*` or of a range of numbers; and a restricted day-of-month together with
    a restricted day-of-week, which crons read in two opposite ways. What is left means the same to CronSim and beat.
    """
    if not isinstance(expression, str):
        raise ValueError(f"is no cron expression: {_FORMS}, in quotes")
    fields = expression.split()
    if len(fields) != FIELDS or not all(_FIELD.fullmatch(field) for field in fields):
        raise ValueError(f"is no cron expression of five fields: {_FORMS}")
    if re.search(r"(?i)\d*l\b|\d+w", f"{fields[2]} {fields[4]}"):
        raise ValueError(f"uses L or W, which beat does not know: {_FORMS}")
    if any(_steps_from_one(term) for field in fields for term in field.split(",")):
        raise ValueError("has a step after a single value, which beat does not know: write */15 or 8-18/2")
    if "7" in re.split("[,-]", re.sub(r"/\d+", "", fields[4])):
        raise ValueError("calls Sunday 7, which beat does not know: write 0 or sun")
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError(
            "restricts day-of-month and day-of-week at once, which crons read in two ways: use two schedules"
        )
    try:
        next(CronSim(" ".join(fields), _EPOCH))
    except CronSimError as error:
        raise ValueError(f"is no cron expression ({str(error).lower()}): {_FORMS}") from None
    except StopIteration:
        raise ValueError("names a moment that never comes") from None
    return " ".join(fields)


def _steps_from_one(term: str) -> bool:
    """Tell a step after one value, `5/10` or `5-5/10`: CronSim reads "from 5 on", beat nothing or 5 alone."""
    base, slash, _ = term.partition("/")
    first, dash, last = base.partition("-")
    if not slash or base == "*":
        return False
    return not dash or not (first.isdigit() and last.isdigit()) or int(first) == int(last)


def shortest_gap(expression: str) -> timedelta:
    """Give the shortest time between two ticks, in the clock that the expression is read in."""
    ticks = CronSim(expression, _EPOCH)
    last = next(ticks)
    gap = timedelta(days=366)
    for _ in range(_SAMPLES):
        try:
            tick = next(ticks)
        except StopIteration:
            break
        gap, last = min(gap, tick - last), tick
    return gap
