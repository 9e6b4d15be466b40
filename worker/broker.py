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
from worker.telemetry import tasklogs

logger = logging.getLogger(__name__)

SHUTDOWN_SLACK = 300
"""Seconds added to the longest call before the broker takes a message for lost."""

ANSWER_SECONDS = 2.0
"""How long a broker may take to say that it is there."""

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
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


PROCESSES = {"compactor": "worker", "scheduler": "beat"}
"""What the processes are called in traces, by the names of their apps."""


def make_app(name: str, settings: Settings) -> Celery:
    """Build a Celery app on the service's configuration."""
    redistransport.install()
    tasklogs.install(PROCESSES.get(name, name), settings)
    app = Celery(name, task_cls="worker.telemetry.taskevents:PlainTask")
    app.conf.update(configuration(settings))
    return app


def answers(app: Celery) -> bool:
    """Tell whether the broker answers now, on a connection of its own; never raises."""
    patience = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS, "max_retries": 0}
    options = app.conf.broker_transport_options | patience
    try:
        with app.connection_for_write(connect_timeout=ANSWER_SECONDS, transport_options=options) as connection:
            client = getattr(connection.default_channel, "client", None)
            if client is not None:
                client.ping()
    except Exception:  # each transport has its own errors
        return False
    return True


LONGEST_COUNTDOWN = 300.0
"""Seconds. A message may wait no longer in a worker: it must stay well below the broker's visibility time-out."""


IN_BULK = 6
"""The priority of messages that come by the thousand (on Redis 0, the default, is taken first, 9 last).

What beat sends every few seconds expires as soon as the next is sent: behind a long queue none of it would be done,
neither the sweep nor the decision about conversations that have fallen idle, for as long as that queue lasts.
"""


class CeleryOutbox:
    """Send by task name. A broker that is away is told in the log: the rows are committed, the sweep sends again."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.failed = False
        """Whether any message could not be handed over."""

    def scan(self, scan_id: str) -> None:
        """Have a scan listed."""
        self._send(SCAN, [scan_id], told=scan_id)

    def page(self, scan_id: str, number: int) -> None:
        """Have a page of candidates measured."""
        self._send(ASSESS, [scan_id, number], told=f"page {number} of {scan_id}", priority=IN_BULK)

    def compaction(self, compaction_id: str, *, told: str, delay: float = 0) -> bool:
        """Have a planned compaction run, after delay seconds; False where that is left to the sweep."""
        return delay <= LONGEST_COUNTDOWN and self._send(COMPACT, [compaction_id], told=told, countdown=delay or None)

    def events(self, event_ids: Sequence[str]) -> bool:
        """Have what webhooks told looked into; False where that is left to the sweep."""
        return self._send(EVENTS, [list(event_ids)], told=f"{len(event_ids)} webhooks", priority=IN_BULK)

    def _send(
        self, task: str, args: list[Any], *, told: str, countdown: float | None = None, priority: int | None = None
    ) -> bool:
        """Send a message. told: what stands for its arguments on Flower's pages."""
        try:
            self._app.send_task(task, args=args, countdown=countdown, priority=priority, argsrepr=told, kwargsrepr="")
        except (OperationalError, OSError) as error:
            self.failed = True
            logger.warning("the broker did not take %s%s; the sweep will send it again: %s", task, tuple(args), error)
            return False
        return True
