"""What of tracing needs OpenTelemetry: imported only where its extra is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, Status, Tracer, TraceState
from opentelemetry.trace.propagation import tracecontext
from opentelemetry.util.types import Attributes

GROUP = "opentelemetry_traces_exporter"

WRITTEN = re.compile(r"^(?:exception\.|http\.request\.header\.|http\.response\.header\.)|\.(?:args|kwargs|body)$")
"""Attributes that hold what somebody wrote."""

QUERIES = frozenset({"url.query", "http.target"})


class CannotExport(Exception):
    """The exporter that is asked for cannot be had; the message says which and what to do."""


class Discreet(SpanExporter):
    """Hands spans on without the words of errors, without queries, and without secrets."""

    def __init__(self, exporter: SpanExporter, clean: Callable[[str], str]) -> None:
        self._exporter, self._clean = exporter, clean

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export what may be seen of spans."""
        return self._exporter.export([self._seen(span) for span in spans])

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is left."""
        return self._exporter.force_flush(timeout_millis)

    def _seen(self, span: ReadableSpan) -> ReadableSpan:
        return ReadableSpan(
            name=self._clean(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={
                name: self._value(value)
                for name, value in (span.attributes or {}).items()
                if name not in QUERIES and not WRITTEN.search(name)
            },
            # An event is an exception with its text and its traceback; the log has what may be told of it.
            events=(),
            links=span.links,
            kind=span.kind,
            instrumentation_scope=span.instrumentation_scope,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
        )

    def _value(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return self._clean(value.partition("?")[0] if urlsplit(value).scheme in ("http", "https") else value)


class NoOrphans(Sampler):
    """Leaves out requests and statements that belong to no work: looks that are taken every few seconds."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about one span."""
        orphan = not trace.get_current_span(parent_context).get_span_context().is_valid
        if orphan and kind is SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name it."""
        return f"NoOrphans({self._inner.get_description()})"


def begin(process: str, clean: Callable[[str], str], environ: Mapping[str, str]) -> Tracer:
    """Set this process's provider up and have Celery's messages carry traces. Raises CannotExport."""
    exporters = [_exporter(name, environ) for name in _names(environ)]
    name = environ.get("OTEL_SERVICE_NAME") or f"compactor-{process}"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.sampler = NoOrphans(provider.sampler)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(Discreet(exporter, clean)))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    return trace.get_tracer("compactor", metadata.version("compactor"))


def watch_engine(engine: Any) -> None:
    """Make spans of an engine's statements; their parameters are no part of them."""
    # It names SQLAlchemy 2.0 as its last; its listeners are those of 2.1 too, which the tests hold it to.
    SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


def watch_client(client: Any) -> None:
    """Make spans of a client's requests."""
    HTTPXClientInstrumentor.instrument_client(client)


@contextmanager
def span(tracer: Tracer, traceparent: str | None, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
    """Open a span below a row's traceparent; below what is under way where that is the same trace, or none is given."""
    parent = None
    if traceparent is not None:
        kept = tracecontext.TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        its, ours = (trace.get_current_span(of).get_span_context() for of in (kept, None))
        if its.is_valid and its.trace_id != ours.trace_id:
            parent = kept
    with tracer.start_as_current_span(name, context=parent, attributes=dict(attributes), record_exception=False):
        yield


def _names(environ: Mapping[str, str]) -> list[str]:
    return [name.strip().lower() for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",") if name.strip()]


def _exporter(name: str, environ: Mapping[str, str]) -> SpanExporter:
    wanted = name
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        wanted = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for entry in metadata.entry_points(group=GROUP, name=wanted):
        exporter: SpanExporter = entry.load()()
        return exporter
    raise CannotExport(f"there is no exporter {wanted}: install its package, or set OTEL_TRACES_EXPORTER to otlp")
