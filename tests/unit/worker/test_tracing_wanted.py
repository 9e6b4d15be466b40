from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.telemetry import otel, tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_traces_are_made_when_the_standard_variables_ask_for_them(environ: dict[str, str], *, asked: bool) -> None:
    assert tracing.wanted(environ) is asked


def test_without_the_extra_the_log_says_so_and_the_service_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "worker.telemetry.otel")
    monkeypatch.delattr("worker.telemetry.otel")
    assert tracing.start("worker", str, ENDPOINT) is False
    [told] = caplog.records
    assert told.levelno == logging.WARNING
    assert "install the extra, compactor[otel]" in told.getMessage()
    assert tracing.here() is None
    with tracing.continued(TRACE, "anything"):
        pass


@pytest.mark.parametrize(
    "environ", [{"OTEL_TRACES_EXPORTER": "zipkin"}, ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}]
)
def test_an_exporter_that_is_not_there_is_named(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert tracing.start("worker", str, environ) is False
    assert "there is no exporter" in caplog.text


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.sampler = otel.NoOrphans(provider.sampler)
    provider.add_span_processor(SimpleSpanProcessor(otel.Discreet(kept, lambda text: text.replace("s3cret", "***"))))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield kept
    provider.shutdown()


def test_work_on_a_row_goes_on_with_the_rows_trace(spans: InMemorySpanExporter) -> None:
    with tracing.continued(None, "a sweep"), tracing.continued(TRACE, "the row"):
        kept = str(tracing.here())
        with tracing.continued(kept, "within"):
            pass
    within, row, sweep = spans.get_finished_spans()
    assert f"{row.context.trace_id:032x}" == TRACE.split("-")[1]
    assert row.parent is not None
    assert f"{row.parent.span_id:016x}" == TRACE.split("-")[2]
    assert (within.context.trace_id, within.parent) == (row.context.trace_id, row.context)
    assert sweep.context.trace_id != row.context.trace_id


@pytest.mark.parametrize("broken", ["", "nonsense", "00-0-0-00"])
def test_a_trace_that_cannot_be_read_begins_none_and_breaks_nothing(broken: str, spans: InMemorySpanExporter) -> None:
    with tracing.continued(None, "a sweep"), tracing.continued(broken, "the row"):
        pass
    row, sweep = spans.get_finished_spans()
    assert row.context.trace_id == sweep.context.trace_id


def test_an_error_leaves_its_kind_in_a_span_and_none_of_its_words(spans: InMemorySpanExporter) -> None:
    def fall() -> None:
        trace.get_current_span().set_attribute("http.url", "http://host/path?key=abc")
        trace.get_current_span().set_attribute("exception.message", "a prompt")
        raise ValueError("a prompt")

    with pytest.raises(ValueError, match="a prompt"), tracing.continued(None, "work", note="with s3cret"):
        fall()
    [span] = spans.get_finished_spans()
    assert dict(span.attributes or {}) == {"note": "with ***", "http.url": "http://host/path"}
    assert (span.status.is_ok, span.status.description, span.events) == (False, None, ())


def test_a_request_that_belongs_to_no_work_is_no_trace(spans: InMemorySpanExporter) -> None:
    tracer = tracing._tracer
    assert tracer is not None
    tracer.start_span("SELECT ledger", kind=trace.SpanKind.CLIENT).end()
    assert spans.get_finished_spans() == ()
    with tracing.continued(None, "work"):
        tracer.start_span("SELECT ledger", kind=trace.SpanKind.CLIENT).end()
    assert [span.name for span in spans.get_finished_spans()] == ["SELECT ledger", "work"]
