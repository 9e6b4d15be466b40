"""What every command needs: the settings, the ledger, the service, and a way out that an operator understands."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.console import Console

from worker.audit.ledger import Ledger
from worker.logs.setup import configure
from worker.service import NoOutbox, Outbox, Service
from worker.settings import Settings

DONE, FAILED, WRONG_USE = 0, 1, 2
"""The exit statuses: done; something failed; wrong use or configuration."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def settings(*, join: bool = True) -> Settings:
    """Read the settings and set the command's own log up: warnings alone, one line each.

    join: whether to join what a running `compactor up` has brought up.
    """
    read = Settings.load(join=join)
    configure(read, level=logging.WARNING, auto="text")
    return read


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Open the ledger for reading what is in it."""
    opened = Ledger.open(settings().ledger_url)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def service(read: Settings, outbox: Outbox | None = None) -> Iterator[Service]:
    """Open the whole service in this process; without an outbox it can look, but sends nothing."""
    opened = Service.open(read, outbox or NoOutbox())
    try:
        yield opened
    finally:
        opened.close()


def show_json(value: Any) -> None:
    """Print a value for programs: plain JSON on standard output, times in ISO 8601."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def json_line(value: Any) -> str:
    """Give a value as one line of JSON."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def fail(sentence: str, status: int = FAILED) -> NoReturn:
    """End the command with a sentence on standard error."""
    err.print(f"compactor: {sentence}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(status)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
