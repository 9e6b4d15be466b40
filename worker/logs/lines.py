"""How a line is made of a record, whoever logged it: its ids, its sentence, its fields, and one of two forms."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.discretion import discreet, traceback_of, words
from worker.logs.masks import Masks

FIELDS = "fields"
"""The attribute of a record (`extra={FIELDS: {...}}`) that holds what a program would want to read of its sentence."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Discretion(logging.Filter):
    """Puts exceptions that are to stand in a sentence into words that everybody may read."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record's arguments; every record passes."""
        if isinstance(record.args, Mapping):
            values = {name: _told(value) for name, value in record.args.items()}
            error = record.exc_info[1] if record.exc_info else None
            # Celery's way to tell of a task that failed: the repr is made before it is logged.
            if error is not None and "exc" in values:
                values["exc"] = words(error)
            record.args = values
        elif record.args:
            record.args = tuple(_told(value) for value in record.args)
        return True


def formatter(stream: TextIO, masks: Masks, *, as_json: bool) -> logging.Formatter:
    """Give the formatter of a process's one handler. as_json: an object a line; else for a person to read."""
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _fields if as_json else _no_fields,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.ExceptionRenderer(_traceback),
        _discreet,
        masks,
    ]
    if as_json:
        last += [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        last += [_one_line, structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=last)


def _told(value: object) -> object:
    return words(value) if isinstance(value, BaseException) else value


def _fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    fields = getattr(event.get("_record"), FIELDS, None)
    if isinstance(fields, Mapping):
        event.update(fields)
    return event


def _no_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Leave the fields to those who read JSON: the sentence has them in words."""
    return event


def _traceback(exc_info: ExcInfo) -> str:
    return traceback_of(exc_info[1])


def _discreet(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["event"] = discreet(str(event["event"]))
    return event


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep a sentence on its line: what it quotes must not pass for a line of its own, nor steer a terminal."""
    event["event"] = _CONTROL.sub(" ", event["event"])
    return event
