"""Traces for OpenTelemetry: one for each tick and each webhook, down to the closing of the rows that came of it.

Off unless the standard variables ask for it (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER, read by
OpenTelemetry itself from the process's environment), and unless the extra `otel` is installed. Messages carry a trace
from task to task; what outlives a message keeps it in its row, as a W3C `traceparent`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

EXTRA = "install the extra, compactor[otel]"

FORM = "00-{trace:032x}-{span:016x}-{flags:02x}"
"""A traceparent: 55 characters."""

_tracer: Tracer | None = None


def wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether the standard variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or any(environ.get(name) for name in ENDPOINTS))


def start(process: str, clean: Callable[[str], str], environ: Mapping[str, str] | None = None) -> bool:
    """Begin to trace this process where that is asked for; gives whether it does now.

    process: its name in the traces, where OTEL_SERVICE_NAME gives none; clean: takes secrets out of a text. What is
    missing is said in the log, and the service runs without.
    """
    global _tracer  # noqa: PLW0603 - OpenTelemetry has one provider a process as well
    given = os.environ if environ is None else environ
    if _tracer is not None or not wanted(given):
        return _tracer is not None
    try:
        from worker.telemetry import otel  # noqa: PLC0415 - an extra
    except ImportError as error:
        logger.warning("traces are asked for, but OpenTelemetry is not installed (%s): %s", error.name, EXTRA)
        return False
    try:
        _tracer = otel.begin(process, clean, given)
    except otel.CannotExport as error:
        logger.warning("traces are asked for, but %s", error)
        return False
    logger.info("traces are exported (compactor %s)", metadata.version("compactor"))
    return True


def watch_engine(engine: Any) -> None:
    """Have a database engine's statements, without their parameters, be spans."""
    if _tracer is not None:
        from worker.telemetry import otel  # noqa: PLC0415

        otel.watch_engine(engine)


def watch_client(client: Any) -> None:
    """Have an HTTP client's requests, without query and headers, be spans."""
    if _tracer is not None:
        from worker.telemetry import otel  # noqa: PLC0415

        otel.watch_client(client)


def here() -> str | None:
    """Give the traceparent of what is under way, to be kept in a row; None while nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415

    now = trace.get_current_span().get_span_context()
    if not now.is_valid:
        return None
    return FORM.format(trace=now.trace_id, span=now.span_id, flags=int(now.trace_flags))


@contextmanager
def continued(traceparent: str | None, name: str, **attributes: str) -> Iterator[None]:
    """Be a span of the trace that a row was begun in; of the one that is under way where the row has none."""
    if _tracer is None:
        yield
        return
    from worker.telemetry import otel  # noqa: PLC0415

    with otel.span(_tracer, traceparent, name, attributes):
        yield
