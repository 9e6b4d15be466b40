"""The log's one configuration, the same in every process of the service."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Literal, TextIO

from worker.logs.lines import Discretion, formatter
from worker.logs.masks import Masks
from worker.settings import Settings

QUIET = ("alembic", "httpcore", "httpx", "opentelemetry", "tornado.access")
"""Loggers whose every request or step is no news; httpx would log whole URLs."""

Form = Literal["json", "text"]

logger = logging.getLogger(__name__)


class _Handler(logging.StreamHandler[TextIO]):
    """The one that writes this process's lines."""


def configure(
    settings: Settings, *, level: int | str | None = None, stream: TextIO | None = None, auto: Form | None = None
) -> Form:
    """Have everything that the process logs written as the settings have it, whichever library says it.

    level: instead of the settings' one; stream: instead of standard error; auto: the form where the settings leave
    it open, instead of text on a terminal and JSON elsewhere. It may be called again: the last call holds. Gives the
    form.
    """
    where = sys.stderr if stream is None else stream
    form = (auto or _usual(where)) if settings.log_format == "auto" else settings.log_format
    handler = _Handler(where)
    handler.addFilter(Discretion())
    handler.setFormatter(formatter(where, Masks.of(settings), as_json=form == "json"))
    root = logging.getLogger()
    # Handlers of a kind of their own are somebody's who looks on.
    root.handlers[:] = [one for one in root.handlers if type(one) not in (logging.StreamHandler, _Handler)] + [handler]
    root.setLevel(settings.log_level if level is None else level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A failure to write a line must not write a traceback with the line's arguments instead.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    warnings.formatwarning = _warning
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    return form


def _usual(stream: TextIO) -> Form:
    return "text" if stream.isatty() else "json"


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    del line
    return f"{category.__name__} at {filename}:{lineno}: {message}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logger.critical("a fault of the service itself ended the process", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = "one" if args.thread is None else args.thread.name
    logger.error("a fault of the service itself ended the thread %s", name, exc_info=args.exc_value)
