"""The broker: how every process of the service is set up for it, and how work is handed to it.

Messages carry ids, and nothing that is not in the ledger already.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from worker import redistransport
from worker.names import ASSESS, COMPACT, COMPACT_QUEUE, EVENTS, SCAN, SCAN_QUEUE
from worker.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_SLACK = 300
"""Seconds added to the longest call before the broker takes a message for lost."""

PUBLISH_RETRIES = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0}
"""A publisher gives up soon: what it had to say stands in the ledger, and the sweep says it again."""


def configuration(settings: Settings) -> dict[str, Any]:
    """Give the Celery configuration of every process of the service."""
    return {
        "broker_url": settings.require_broker(),
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # A message is delivered again when nobody acknowledged it for this long: longer than any task runs.
            "visibility_timeout": int(settings.letta_compact_timeout * 1.5) + SHUTDOWN_SLACK,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "global_keyprefix": "compactor:",
            "socket_timeout": 30,
            "socket_keepalive": True,
        },
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_default_queue": SCAN_QUEUE,
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in (SCAN_QUEUE, COMPACT_QUEUE)],
        "task_routes": {COMPACT: {"queue": COMPACT_QUEUE, "routing_key": COMPACT_QUEUE}},
        "task_publish_retry_policy": PUBLISH_RETRIES,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_pool": "threads",
        "worker_concurrency": settings.concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


def make_app(name: str, settings: Settings) -> Celery:
    """Build a Celery app on the service's configuration."""
    redistransport.install()
    app = Celery(name)
    app.conf.update(configuration(settings))
    return app


LONGEST_COUNTDOWN = 300.0
"""Seconds. A message may wait no longer in a worker: it must stay well below the broker's visibility time-out."""


class CeleryOutbox:
    """Send by task name. A broker that is away is told in the log: the rows are committed, the sweep sends again."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.failed = False
        """Whether any message could not be handed over."""

    def scan(self, scan_id: str) -> None:
        """Have a scan listed."""
        self._send(SCAN, [scan_id])

    def page(self, scan_id: str, number: int) -> None:
        """Have a page of candidates measured."""
        self._send(ASSESS, [scan_id, number])

    def compaction(self, compaction_id: str, *, delay: float = 0) -> bool:
        """Have a planned compaction run, after delay seconds; False where that is left to the sweep."""
        return delay <= LONGEST_COUNTDOWN and self._send(COMPACT, [compaction_id], countdown=delay or None)

    def events(self, event_ids: Sequence[str]) -> bool:
        """Have what webhooks told looked into; False where that is left to the sweep."""
        return self._send(EVENTS, [list(event_ids)])

    def _send(self, task: str, args: list[Any], countdown: float | None = None) -> bool:
        try:
            self._app.send_task(task, args=args, countdown=countdown)
        except (OperationalError, OSError) as error:
            self.failed = True
            logger.warning("the broker did not take %s%s; the sweep will send it again: %s", task, tuple(args), error)
            return False
        return True
