"""One prefixed log of everything that runs under the supervisor, on the terminal and in a file for each child."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console
from rich.text import Text

MAX_FILE_BYTES = 10_000_000
"""A child's file is rotated at this size; one older file is kept. `up` may run for weeks."""

TAIL_LINES = 15
"""Last lines of each child that are kept in memory, for the error that says why it did not start."""

STYLES = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
"""Colours of the names on a terminal, in turn. Red is left to errors."""

_CONTROL = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


class ChildLog:
    """Takes whole lines from many threads and keeps them whole.

    `folder` gets one `NAME.log` for each name, emptied at the start and stamped with the local time, so that one file
    is what an operator greps. `console` shows every line with its name in front; None shows nothing.
    A terminal that has gone away or a full disk never stops a child: the lines that cannot be written are lost.
    """

    def __init__(self, folder: Path, names: Sequence[str], console: Console | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._console = console
        self._width = max((len(name) for name in names), default=0)
        self._styles = {name: STYLES[index % len(STYLES)] for index, name in enumerate(names)}
        self._tails: dict[str, deque[str]] = {name: deque(maxlen=TAIL_LINES) for name in names}
        self._files = {name: _LogFile(folder / f"{name}.log") for name in names}
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        """Write one line, without its end, under a name given at the start."""
        with self._lock:
            self._tails[name].append(line)
            self._files[name].write(line)
            if self._console is not None:
                self._show(self._console, name, line)

    def tail(self, name: str) -> list[str]:
        """Give the last lines of a child, oldest first."""
        with self._lock:
            return list(self._tails[name])

    def close(self) -> None:
        """Close the files; what is written later is lost."""
        with self._lock:
            for file in self._files.values():
                file.close()

    def _show(self, console: Console, name: str, line: str) -> None:
        prefix = (f"{name:<{self._width}} | ", self._styles[name])
        try:
            # A child's line may quote what came from outside: no control sequence of it reaches the terminal.
            console.print(Text.assemble(prefix, line.translate(_CONTROL)), soft_wrap=True, highlight=False)
        except (OSError, ValueError, SystemExit):
            # The terminal was closed or the reader of the pipe went away (rich raises SystemExit for that).
            self._console = None


class _LogFile:
    """A file that is emptied at the start and rotated when it grows too large."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"")
        path.with_name(f"{path.name}.1").unlink(missing_ok=True)
        self._handler = _QuietHandler(path, maxBytes=MAX_FILE_BYTES, backupCount=1, encoding="utf-8", errors="replace")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._closed = False

    def write(self, line: str) -> None:
        if not self._closed:
            self._handler.emit(logging.makeLogRecord({"msg": line, "created": time.time()}))

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._handler.close()


class _QuietHandler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Lose the line: a full disk is no reason to print a traceback for each of them."""
