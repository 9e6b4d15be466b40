"""The service's figures for Prometheus: `python -m ops.metrics`, a small process that reads the ledger when asked.

They come from the ledger, so that they are right with many workers and after any restart. A database that is away, or
of another release, is a page with `compactor_ledger_up 0` alone; why is in the log. Flower's metrics tell of tasks.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.figures import families
from worker.audit.database import LedgerError
from worker.audit.ledger import Ledger
from worker.audit.throttles import Limits
from worker.clock import Clock, utc_now
from worker.logs.setup import configure
from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError
from worker.policyfile import PolicyFile
from worker.settings import Settings, SettingsError
from worker.startup import give_up, or_exit

logger = logging.getLogger("ops.metrics")  # not __main__, as which it runs

KEEP_FOR = 1.0
"""Seconds for which a reading is given again: two Prometheus servers must not cost twice."""


class LedgerCollector(Collector):
    """Reads every figure at each scrape, one scrape at a time."""

    def __init__(self, settings: Settings, *, keep_for: float = KEEP_FOR, now: Clock = utc_now) -> None:
        self._settings = settings
        self._keep_for = keep_for
        self._now = now
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._policies: PolicyFile | None = None
        self._read: list[Metric] = []
        self._read_at = float("-inf")
        self._said: str | None = None

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not need the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Give the figures, at most so old; `compactor_ledger_up` alone where they cannot be read."""
        with self._lock:
            if time.monotonic() - self._read_at > self._keep_for:
                self._read = self._page()
                self._read_at = time.monotonic()
            return self._read

    def close(self) -> None:
        """Give the ledger's connections back."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
            self._ledger = None

    def _page(self) -> list[Metric]:
        settings = self._settings
        try:
            if self._ledger is None:
                self._ledger = Ledger.open(settings.ledger_url)
            figures = self._ledger.monitoring.figures()
            limits = Limits(settings.max_in_flight, settings.max_in_flight_per_model)
            throttles = self._ledger.throttles.all(limits)
        except LedgerError as error:
            self._say(f"no figures: {error}")
            return [_up(0)]
        except Exception as error:
            # Whatever it is, a scrape is answered; and what a driver says may hold a statement with its values.
            self._say(f"no figures: {type(error).__name__} while reading the ledger at {settings.shown_ledger_url}")
            return [_up(0)]
        self._say(None)
        return [_up(1), *families(figures, throttles, self._intervals(), self._now())]

    def _intervals(self) -> dict[str, float]:
        """Give the policy file's schedules; none while the file has mistakes, which the workers tell of."""
        try:
            if self._policies is None:
                server = SlidingWindow(self._settings.letta_sliding_window)
                self._policies = PolicyFile(self._settings.policy_file, server)
            book = self._policies.book()
        except PolicyError:
            return {}
        return {name: schedule.interval.total_seconds() for name, schedule in book.schedules.items()}

    def _say(self, sentence: str | None) -> None:
        """Log what is wrong when it begins and when it is over, not at each scrape."""
        if sentence is not None and sentence != self._said:
            logger.warning("%s", sentence)
        elif sentence is None and self._said is not None:
            logger.warning("the ledger is back")
        self._said = sentence


def _up(value: int) -> Metric:
    return GaugeMetricFamily("compactor_ledger_up", "Whether the ledger could be read.", value)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = or_exit(Settings.load)
    configure(settings)
    over = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    collector = LedgerCollector(settings)
    registry = CollectorRegistry()
    registry.register(collector)
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        why = error.strerror or str(error)
        give_up(SettingsError(f"COMPACTOR_METRICS_HOST, COMPACTOR_METRICS_PORT: cannot listen on {host}:{port}: {why}"))
    logger.info("metrics on http://%s:%d/metrics", host, port)
    over.wait()
    server.shutdown()
    thread.join()
    collector.close()


if __name__ == "__main__":
    main()
