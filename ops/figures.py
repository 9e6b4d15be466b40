"""The ledger's figures as metric families for Prometheus: pure, from one reading to one page.

Labels are words of a fixed few: states, reasons, triggers, the policy file's names, model handles. Ids and whatever
was said in a conversation never are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from worker.audit.monitoring import Figures, Row
from worker.audit.totals import MILLION
from worker.audit.totaltables import AFTER, BEFORE, BUCKETS, bucket_column
from worker.throttle import Breaker, Throttle

OWN_MODEL = "(agent's own)"
"""The label of compactions that leave the summarizer's model to the agent's own setting."""

NO_SCHEDULE = "(none)"
"""The label of scans that were asked for by hand."""

Key = tuple[str, ...]


def families(
    figures: Figures, throttles: Mapping[str, Throttle], intervals: Mapping[str, float], now: datetime
) -> Iterator[Metric]:
    """Give every family. intervals: the policy file's schedules, with the seconds between two of their ticks."""
    yield from _compactions(figures.compactions)
    yield _usage("before", "Usage before", BEFORE, figures.compactions)
    yield _usage("after", "Usage after", AFTER, figures.compactions)
    yield from _scans(figures.scans)
    yield from _schedules(figures, intervals)
    yield from _open(figures, now)
    yield from _breakers(throttles, now)
    yield from _webhooks(figures, now)


def _compactions(rows: list[Row]) -> Iterator[Metric]:
    yield _counter(
        "compactions", "Closed compactions.", ("state", "outcome", "reason", "trigger", "model"), rows, "compactions"
    )
    yield _counter("tokens_freed", "Tokens that left a context, net of the summary.", ("model",), rows, "tokens_freed")
    tokens = CounterMetricFamily(
        "compactor_summarizer_tokens_estimated",
        "Tokens of the summarizer, estimated, since no answer of the server tells them: read, what left the contexts; "
        "written, the summaries at 4 bytes a token. What refused or failed compactions cost is not in it.",
        labels=("direction", "model"),
    )
    for direction in ("read", "written"):
        for (model,), count in sorted(_summed(rows, ("model",), f"tokens_{direction}_estimated").items()):
            tokens.add_metric((direction, model), count)
    yield tokens
    yield _counter("messages_evicted", "Messages that left a context.", ("policy",), rows, "messages_evicted")
    yield _counter(
        "messages_dropped",
        "Messages that should have stayed in a context and are gone from it.",
        ("policy",),
        rows,
        "messages_dropped",
    )
    yield _counter(
        "compaction_seconds",
        "Seconds that compactions took, from the claim to the closed row.",
        ("state",),
        rows,
        "milliseconds",
        scale=1_000,
    )
    flags: dict[str, int] = defaultdict(int)
    for row in rows:
        for flag in row["flags"].split():
            flags[flag] += int(row["compactions"])
    flagged = CounterMetricFamily(
        "compactor_flagged", "Compactions that succeeded with something to be said of them.", labels=("flag",)
    )
    for flag, count in sorted(flags.items()):
        flagged.add_metric((flag,), count)
    yield flagged


def _usage(side: str, what: str, column: str, rows: list[Row]) -> Metric:
    family = HistogramMetricFamily(
        f"compactor_usage_{side}",
        f"{what} compactions that succeeded and were measured: tokens in context over the window.",
        labels=("policy",),
    )
    parts = {number: _summed(rows, ("policy",), bucket_column(column, number)) for number in BUCKETS}
    sums = _summed(rows, ("policy",), f"usage_{side}_millionths")
    for key, total in sorted(sums.items()):
        counts = [parts[number][key] for number in BUCKETS]
        bounds = [*(f"{number / 10:g}" for number in BUCKETS[:-1]), "+Inf"]
        running = [(bound, float(sum(counts[: index + 1]))) for index, bound in enumerate(bounds)]
        family.add_metric(key, buckets=running, sum_value=total / MILLION)
    return family


def _scans(rows: list[Row]) -> Iterator[Metric]:
    yield _counter("scans", "Scans that came to an end.", ("schedule", "trigger", "state"), rows, "scans")
    for column, name, what in (
        ("listed", "scan_conversations_listed", "Conversations that scans have listed."),
        (
            "measured",
            "scan_conversations_measured",
            "Of those, the ones put down to be measured.",
        ),
        ("requests", "scan_requests", "Requests to the Letta server for listing and measuring."),
        ("planned", "scan_compactions_planned", "Of those, the ones planned under a scan's budget."),
    ):
        yield _counter(name, what, ("schedule",), rows, column)
    yield _counter("scan_seconds", "Seconds that scans took.", ("schedule", "state"), rows, "milliseconds", scale=1_000)
    last = GaugeMetricFamily(
        "compactor_last_scan_duration_seconds", "What the last finished scan of a schedule took.", labels=("schedule",)
    )
    for row in rows:
        if row["schedule"] and row["state"] == "finished" and row["trigger"] == "schedule":
            last.add_metric((row["schedule"],), row["last_milliseconds"] / 1_000)
    yield last


def _schedules(figures: Figures, intervals: Mapping[str, float]) -> Iterator[Metric]:
    every = GaugeMetricFamily(
        "compactor_schedule_interval_seconds", "The least time between two ticks of a schedule.", labels=("schedule",)
    )
    for schedule, seconds in sorted(intervals.items()):
        every.add_metric((schedule,), seconds)
    yield every
    # A scan that somebody asked for by hand says nothing about beat.
    ticked = [row for row in figures.scans if row["trigger"] == "schedule"]
    for name, what, rows, state in (
        ("last_finished_scan", "the last scan that a schedule's tick began finished", ticked, "finished"),
        ("last_success", "a compaction that a schedule planned last succeeded", figures.compactions, "succeeded"),
        ("last_failure", "a compaction that a schedule planned last failed", figures.compactions, "failed"),
    ):
        at = GaugeMetricFamily(f"compactor_{name}_timestamp_seconds", f"When {what}.", labels=("schedule",))
        latest: dict[str, datetime] = {}
        for row in rows:
            if row["schedule"] and row["state"] == state:
                latest[row["schedule"]] = max(
                    row["last_finished_at"], latest.get(row["schedule"], row["last_finished_at"])
                )
        for schedule, moment in sorted(latest.items()):
            at.add_metric((schedule,), moment.timestamp())
        yield at


def _open(figures: Figures, now: datetime) -> Iterator[Metric]:
    yield _gauges("open_compactions", "Compactions that are not closed.", "state", figures.open_rows)
    yield _gauges("compactions_under_way", "Running compactions.", "model", figures.under_way, _model)
    yield GaugeMetricFamily(
        "compactor_oldest_planned_age_seconds",
        "How long the oldest planned compaction has waited; 0 where none waits.",
        _age(figures.oldest_planned_at, now),
    )


def _breakers(throttles: Mapping[str, Throttle], now: datetime) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "compactor_breaker",
        "1 for the state that the breaker of a model is in; * is the whole fleet.",
        labels=("model", "state"),
    )
    limits = GaugeMetricFamily(
        "compactor_in_flight_limit",
        "How many compactions may be under way, as it stands after what the server took and refused.",
        labels=("model",),
    )
    for handle, throttle in throttles.items():
        for state in Breaker:
            states.add_metric((_model(handle), state.value), float(throttle.breaker(now) is state))
        limits.add_metric((_model(handle),), min(throttle.limit, throttle.most))
    yield states
    yield limits


def _webhooks(figures: Figures, now: datetime) -> Iterator[Metric]:
    yield _gauges("events", "Webhooks taken that are not done with, or failed and still kept.", "state", figures.events)
    yield GaugeMetricFamily(
        "compactor_oldest_unhandled_event_age_seconds",
        "How long the oldest webhook that nobody has looked into has waited; 0 where none waits.",
        _age(figures.oldest_event_at, now),
    )
    yield GaugeMetricFamily(
        "compactor_watches", "Conversations that are watched until they fall idle.", figures.watches
    )
    yield _gauges(
        "deliveries", "Outgoing webhooks that are not delivered: due, or given up.", "state", figures.deliveries
    )
    answers = CounterMetricFamily(
        "compactor_webhook_answers", "Answers of the door for webhooks.", labels=("route", "status")
    )
    for (route, status), count in sorted(figures.answers.items()):
        answers.add_metric((route, str(status)), count)
    yield answers


def _counter(name: str, what: str, labels: Key, rows: list[Row], column: str, *, scale: int = 1) -> Metric:
    family = CounterMetricFamily(f"compactor_{name}", what, labels=labels)
    for key, total in sorted(_summed(rows, labels, column).items()):
        family.add_metric(key, total / scale)
    return family


def _summed(rows: list[Row], labels: Key, column: str) -> dict[Key, int]:
    sums: dict[Key, int] = defaultdict(int)
    for row in rows:
        sums[tuple(_label(name, row[name]) for name in labels)] += int(row[column])
    return sums


def _label(name: str, value: str) -> str:
    if name == "schedule":
        return value or NO_SCHEDULE
    return _model(value) if name == "model" else value


def _model(handle: str) -> str:
    return handle or OWN_MODEL


def _gauges(
    name: str, what: str, label: str, counts: Mapping[str, int], named: Callable[[str], str] = str
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"compactor_{name}", what, labels=(label,))
    for value, count in counts.items():
        family.add_metric((named(value),), count)
    return family


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)
