"""How a process of ours ends when it cannot start: one sentence for each thing that is wrong, and status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from worker.audit.database import LedgerError
from worker.policy.load import PolicyError
from worker.settings import SettingsError

FAILED, WRONG_USE = 1, 2
"""The exit statuses for work that failed, and for wrong use or configuration."""

CONFIGURATION_ERRORS = (SettingsError, PolicyError, LedgerError)

T = TypeVar("T")


def or_exit(prepare: Callable[[], T]) -> T:
    """Do what a start needs, or end the process with the reason instead of a traceback."""
    try:
        return prepare()
    except CONFIGURATION_ERRORS as error:
        give_up(error)


def give_up(error: Exception) -> NoReturn:
    """Print an error line by line and end the process."""
    for line in str(error).splitlines():
        print(f"compactor: {line}", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    raise SystemExit(WRONG_USE)
