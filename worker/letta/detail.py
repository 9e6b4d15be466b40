"""Read the server's own words out of an answer that is not a success."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

LIMIT = 300
"""Characters of a server's text that an error carries."""

LONGEST_WAIT = 86_400.0
"""Seconds. A longer Retry-After is taken for a mistake and cut to this day, so that nothing is put off for ever."""

_HTML = "an HTML page instead of JSON"

# How pydantic prints an input; the input may be a prompt.
_PRINTED_INPUT = re.compile(r"\s*\[type=[\w.]+, input_value=.*?, input_type=\w+\]", re.DOTALL)
# How 0.16.8 words a 404: the actor that it then prints in full is the server's own affair.
_PRINTED_ACTOR = re.compile(r", access level in \[.*", re.DOTALL)
_FIRST_PRINTED_ERROR = re.compile(
    r"\[\{'type': '[\w.]+', 'loc': \((?P<loc>[^)]*)\), 'msg': (?P<msg>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
)


@dataclass(frozen=True, slots=True)
class Detail:
    """What the server says: a text of at most LIMIT characters, and its name for the error, if it has one."""

    text: str = ""
    kind: str | None = None


def read_detail(content: bytes, redact: Callable[[str], str]) -> Detail:
    """Find the text in the bodies that Letta, FastAPI and proxies answer errors with; never raises."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        text = content.decode("utf-8", "replace").strip()
        return Detail(_HTML if text.startswith("<") else clip(redact(text)))
    found = _of_document(document)
    text = _PRINTED_ACTOR.sub("", _PRINTED_INPUT.sub("", found.text))
    return Detail(clip(redact(text)), found.kind)


def clip(text: str) -> str:
    """Put `text` on one line of at most LIMIT characters."""
    line = " ".join(text.split())
    return line if len(line) <= LIMIT else line[: LIMIT - 1] + "…"


def _of_document(document: Any) -> Detail:
    if not isinstance(document, dict):
        return Detail(document if isinstance(document, str) else "")
    error = document.get("error")
    if isinstance(error, dict):
        parts = [str(error[key]) for key in ("message", "detail") if error.get(key)]
        return Detail(" ".join(parts), _word(error.get("type")))
    detail = document.get("detail", error or document.get("message"))
    if isinstance(detail, dict):
        return Detail(str(detail.get("message", "")), _word(detail.get("code")))
    if isinstance(detail, list):
        return Detail(_of_errors(detail))
    text = detail if isinstance(detail, str) else ""
    return Detail(_of_printed_errors(text) if text.startswith("[{") else text)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _of_printed_errors(printed: str) -> str:
    """Letta sends FastAPI's list of errors as Python prints it."""
    try:
        errors = ast.literal_eval(printed)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        # An exception object inside is not a literal. Only the first error is certain not to be part of an input.
        match = _FIRST_PRINTED_ERROR.match(printed)
        if match is None:
            return "the list of its errors could not be read"
        place = ".".join(part.strip(" '\"") for part in match["loc"].split(",") if part.strip())
        return f"{place}: {match['msg'][1:-1]}"
    return _of_errors(errors) if isinstance(errors, list) else ""


def _of_errors(errors: list[Any]) -> str:
    """Name each field and what is wrong with it; the inputs, which FastAPI adds, are left out."""
    named = []
    for error in errors:
        if isinstance(error, dict):
            place = error.get("loc") or ()
            where = ".".join(str(step) for step in place) if isinstance(place, list | tuple) else str(place)
            named.append(f"{where}: {error.get('msg', 'not valid')}")
    return "; ".join(named)


def read_retry_after(value: str | None, date: str | None, now: datetime) -> float | None:
    """Return a Retry-After header in seconds from now, 0 to LONGEST_WAIT, or None where there is none to be read.

    `date` is the answer's Date header: by it a point in time is understood even when the clocks disagree; without it
    `now` serves.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = parse_http_date(value)
        if until is None:
            return None
        seconds = (until - (parse_http_date(date) or now)).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def parse_http_date(value: str | None) -> datetime | None:
    """Return an HTTP date as a time in UTC, None where it is none."""
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
