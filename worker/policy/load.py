"""A policy file's text made into policies and schedules, or refused whole with every mistake named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from pydantic import ValidationError

from worker.contract.compaction import CompactionMode
from worker.contract.problems import sentences
from worker.policy.forecast import SlidingWindow
from worker.policy.rules import PolicyBook

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

LIMITS = {SlidingWindow.EVICT: "0 to below 0.9", SlidingWindow.KEEP: "above 0.1 to 1"}
"""The percentages that a server of each kind does not turn into a full wipe (`SlidingWindow.always_wipes`)."""


class PolicyError(Exception):
    """A policy file that is refused. problems: one sentence each, the key first; source: the file's name."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


def load(text: str, *, source: str, server: SlidingWindow) -> PolicyBook:
    """Read a policy file.

    source: the file's name, for messages; server: what it does with `sliding_window_percentage`, so that one that
    would wipe conversations is refused here. Raises PolicyError with all that is wrong at once.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(source, [f"is not TOML: {str(error)[0].lower()}{str(error)[1:]}"]) from None
    try:
        book = PolicyBook.model_validate(data)
    except ValidationError as error:
        raise PolicyError(source, sentences(error, PolicyBook)) from None
    problems = [*_names(book), *_references(book), *_wipes(book, server)]
    if problems:
        raise PolicyError(source, problems)
    return book


def _names(book: PolicyBook) -> Iterator[str]:
    for table, names in (("policies", book.policies), ("schedules", book.schedules)):
        for name in names:
            if not _NAME.fullmatch(name):
                yield f"{table}.{name!r}: a name is of letters, digits, - and _, 64 at most"


def _references(book: PolicyBook) -> Iterator[str]:
    known = sorted(book.policies)
    named = {f"schedules.{name}.policy": schedule.policy for name, schedule in book.schedules.items()}
    if "webhook" in book.model_fields_set:
        named["webhook.policy"] = book.webhook.policy
    for key, policy in named.items():
        if policy not in book.policies:
            close = get_close_matches(policy, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            yield f"{key}: there is no policy {policy!r}; known: {', '.join(known)}{hint}"


def _wipes(book: PolicyBook, server: SlidingWindow) -> Iterator[str]:
    for name, policy in book.policies.items():
        mode, percentage = (
            policy.compaction.mode or CompactionMode.SLIDING_WINDOW,
            policy.compaction.sliding_window_percentage,
        )
        if percentage is None or not mode.slides or not server.always_wipes(percentage):
            continue
        yield (
            f"policies.{name}.compaction.sliding_window_percentage: a server that takes the field as the share to "
            f"{server.value} (LETTA_SLIDING_WINDOW={server.value}) evicts every message at {percentage:g}, without a "
            f"word: it tries ten points more than asked for, and past the end it falls back to mode 'all'; "
            f"allowed: {LIMITS[server]}"
        )
