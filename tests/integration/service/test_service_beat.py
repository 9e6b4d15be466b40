"""Beat's schedule file when its process ends at a bad moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.service import deployed

ENDS_TWICE = """
from scheduler.celery import PolicyScheduler, app
scheduler = PolicyScheduler(app, schedule_filename=app.conf.beat_schedule_filename)
scheduler.close()
# What a tick was about to write when the signal came.
scheduler._store.cache["entries"] = {}
scheduler.close()
print("ended")
"""


def test_a_beat_that_is_stopped_in_the_middle_of_a_tick_ends_without_a_traceback(
    redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    with deployed(tmp_path, letta_url="http://127.0.0.1:9", broker_url=redis_url, database_url=sqlite_url) as service:
        done = subprocess.run(
            [sys.executable, "-c", ENDS_TWICE],
            env=service.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    assert "Traceback" not in done.stderr
