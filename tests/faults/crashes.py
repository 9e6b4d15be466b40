"""Processes that end: killed at exact instants, killed with work under way, told to stop under load."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.faults.stage import Stage

POINTS = {
    "kill-after-plan": "planned",
    "kill-after-claim": "claimed",
    "kill-before-post": "before-post",
    "kill-during-post": "during-post",
    "kill-between-answer-and-commit": "answered",
    "kill-during-second-look": "second-look",
    "kill-before-close": "before-close",
    "kill-after-close": "closed",
}
"""Kinds by name, and the instant of the hook at which a worker is killed."""

HALF_AN_HOUR = timedelta(minutes=30)

STOP_SLACK = 5.0
"""Seconds that a worker may take to stop beyond the grace of its running compactions."""


def killed_at(point: str) -> Callable[[Stage], None]:
    """The worker is killed at one instant, every worker that takes its place too, for some times."""

    def strike(stage: Stage) -> None:
        times = max(1, stage.size // 4)
        stage.worker(kill={point: times})
        stage.beat()
        stage.settle(kill={point: times})
        deaths = len(list(stage.folder.glob(f"{point}.*")))
        stage.expect(deaths == times, f"{deaths} workers died at {point}, not {times}")

    return strike


def beat_killed(stage: Stage) -> None:
    """Beat is killed with compactions planned, and again with new ones under way."""
    stage.worker()
    beat = stage.beat()
    stage.until(stage.rows, what="a compaction planned")
    beat.kill()
    stage.add_conversations(max(1, stage.size // 2))
    beat = stage.beat()
    stage.until(lambda: set(stage.under_way()) & set(list(stage.wanted)[stage.size :]), what="a compaction under way")
    beat.kill()
    stage.beat()
    stage.settle()


def stopped_under_load(stage: Stage) -> None:
    """A worker is told to stop while its compactions take longer than the grace that it gives them."""
    stage.sandbox.set_latency(compact_latency=3)
    worker = stage.worker()
    stage.beat()
    stage.until(stage.under_way, what="a compaction under way")
    stage.fleet.remove(worker)
    began = time.monotonic()
    status = worker.stop()
    took = time.monotonic() - began
    grace = float(stage.service.environment["COMPACTOR_SHUTDOWN_GRACE"])
    stage.expect(status == 0, f"the worker ended with {status} at SIGTERM")
    stage.expect(took < grace + STOP_SLACK, f"the worker took {took:.1f} s to end at SIGTERM")
    stage.worker()
    stage.settle()
    stage.expect(any(row.recovered for row in stage.rows()), "nothing was cut short by the SIGTERM")


def clock_jumps(stage: Stage) -> None:
    """One worker's clock jumps an hour forward, another's an hour back, in mid-run; then both are right again."""
    clocks = {stage.folder / "clock-ahead": "3600", stage.folder / "clock-behind": "-3600"}
    for file in clocks:
        stage.worker(clock=str(file))
    stage.sandbox.set_latency(compact_latency=1.5)
    stage.beat()
    stage.until(stage.under_way, what="a compaction under way")
    for file, seconds in clocks.items():
        file.write_text(seconds)
    half = max(1, stage.size // 2)
    stage.until(lambda: stage.closed() >= half, what="half of the rows to be closed with the wrong clocks")
    for file in clocks:
        file.write_text("0")
    stage.settle()
    times = [row.finished_at for row in stage.rows() if row.finished_at is not None]
    stage.expect(any(abs(datetime.now(UTC) - time) > HALF_AN_HOUR for time in times), "no clock was wrong")
