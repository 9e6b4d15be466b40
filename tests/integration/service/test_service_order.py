"""In which order workers get what waits for them, on a real Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.broker import CeleryOutbox, make_app
from worker.names import ASSESS, ATTEND, EVENTS, RECONCILE, SCAN, SCAN_QUEUE
from worker.settings import Settings


def test_what_comes_by_the_thousand_lets_what_beat_sends_pass(redis_url: str, tmp_path: Path) -> None:
    app = make_app("test", Settings.load({"COMPACTOR_BROKER_URL": redis_url}, directory=tmp_path))
    outbox = CeleryOutbox(app)
    for number in range(3):
        outbox.page("scan-1", number)
        assert outbox.events([f"evt-{number}"])
    for task in (ATTEND, RECONCILE):
        app.send_task(task)
    outbox.scan("scan-2")
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        taken = [channel.basic_get(SCAN_QUEUE, no_ack=True).headers["task"] for _ in range(9)]
    assert taken == [ATTEND, RECONCILE, SCAN, *[ASSESS, EVENTS] * 3]
