"""What may be told outside the ledger: ids, figures and the service's own sentences, never what somebody wrote.

A library's exception quotes what it worked on, a summary or an address with a password in it; a Letta server's error
may repeat the prompt that it could not send. Both stay where they are needed: the one in nobody's hands, the other in
the ledger.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

OUTSPOKEN = ("worker", "scheduler", "ops", "kombu", "redis", "tornado")
"""Packages whose errors say what went wrong in sentences about it: our own, and those that only know the broker."""

ABOUT_CODE = (OSError, ImportError, AttributeError, NameError, TypeError, NotImplementedError, RecursionError)
"""Errors that speak of the program and of the machine, whoever raises them."""

WITHHELD = "(its words are withheld: they may quote what it worked on)"

IN_THE_LEDGER = "; its words are in the ledger"

_SERVERS_WORDS = re.compile(r"(\banswered \d{3} \([^)]*\)): .*|; it answered: .*", re.DOTALL)
"""How the Letta client tells an error, with the server's own words behind it."""


def discreet(text: str) -> str:
    """Give a text of ours without what a server answered."""
    return _SERVERS_WORDS.sub(lambda found: f"{found[1]}{IN_THE_LEDGER}" if found[1] else "", text)


def words(error: BaseException) -> str:
    """Put an error into words that everybody may read."""
    package = type(error).__module__.partition(".")[0]
    if package in OUTSPOKEN or isinstance(error, ABOUT_CODE):
        return discreet(str(error)) or type(error).__name__
    return f"{type(error).__name__} {WITHHELD}" if str(error) else type(error).__name__


def named(error: BaseException) -> str:
    """Put an error's name before its words."""
    name, said = type(error).__name__, words(error)
    return said if said.startswith(name) else f"{name}: {said}"


def traceback_of(error: BaseException) -> str:
    """Give an error's traceback and those of its causes: places in the code, no values, no strangers' words."""
    return "\n".join(_lines(error, set()))


def _lines(error: BaseException, told: set[int]) -> Iterator[str]:
    if id(error) in told:
        return
    told.add(id(error))
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None:
        yield from _lines(behind, told)
        yield "which led to" if error.__cause__ is None else "which was told as"
    for frame in traceback.format_tb(error.__traceback__):
        yield frame.rstrip()
    yield named(error)
    for one in getattr(error, "exceptions", ()):
        yield from _lines(one, told)
