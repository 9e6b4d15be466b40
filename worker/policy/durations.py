"""Durations as people write them in a policy file: `90s`, `15m`, `1h30m`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WHOLE = re.compile(r"(?:\d+[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")
LONGEST = timedelta(days=3650)


def parse_duration(value: object) -> timedelta:
    """Read a duration such as `1h30m`. Raises ValueError that shows how to write one."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'needs a unit: write "{value:g}s" or "{value:g}m", in quotes')
    if not isinstance(value, str) or not _WHOLE.fullmatch(value.replace(" ", "")):
        raise ValueError('is no duration: write one such as "90s", "15m", "1h30m" or "2d", in quotes')
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(value))
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"is longer than {LONGEST.days} days")
    return timedelta(seconds=seconds)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda span: f"{int(span.total_seconds())}s", return_type=str),
]
"""Read from a policy file's words and written back in seconds, so that a stored policy reads again as it was."""


def spell(span: timedelta) -> str:
    """Give a duration in its two largest units: `3d 4h`, `12m 5s`, `15m`."""
    seconds = int(span.total_seconds())
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
