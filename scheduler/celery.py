"""The beat app: `celery -A scheduler beat`."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Mapping
from typing import IO, Any

from celery.beat import PersistentScheduler
from celery.schedules import crontab, schedule

from scheduler.schedule import Entry, entries
from worker.broker import make_app
from worker.policy.forecast import SlidingWindow
from worker.policy.rules import Schedule
from worker.policyfile import PolicyFile
from worker.settings import Settings
from worker.startup import or_exit

logger = logging.getLogger(__name__)


_lock: IO[str] | None = None


def _alone() -> bool:
    """Tell whether this is the state directory's first beat, and keep that place until the process ends.

    Two that wrote one schedule file would each find it half written by the other.
    """
    global _lock  # noqa: PLW0603 - the system gives the lock back when the process ends, and not before
    if _lock is None:
        file = (settings.state_dir / "beat.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        _lock = file
    return True


def beat_entry(entry: Entry) -> dict[str, Any]:
    """Put an entry into Celery's own words."""
    when = crontab.from_string(entry.cron) if entry.cron is not None else schedule(entry.every)
    # The entry's name says on Flower's pages what the arguments would.
    options = {"expires": entry.expires, "argsrepr": entry.name, "kwargsrepr": ""}
    return {"task": entry.task, "kwargs": entry.kwargs, "schedule": when, "options": options}


class PolicyScheduler(PersistentScheduler):
    """Beat's own scheduler, which takes over changes of the policy file's schedules while it runs.

    The file's time zone alone is read at the start: Celery's crontabs follow the app's.
    """

    _in_force: Mapping[str, Schedule]
    schedule_filename: str
    _store: Any
    _closed = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Look at the policy file before the entries; a bad file leaves them as they are."""
        book = policies.book()
        if book.schedules != self._in_force:
            self._in_force = book.schedules
            current = {entry.name: beat_entry(entry) for entry in entries(book, settings)}
            self.merge_inplace(current)  # type: ignore[arg-type] # celery-types knows only entries; Celery takes these
            self._heap = None
            logger.info("the schedules changed: %s", ", ".join(sorted(current)))
        return float(super().tick(*args, **kwargs))

    def close(self) -> None:
        """Put the schedule away, once.

        Celery does it in the handler of a signal and again on the way out. A tick that the signal interrupted may have
        left something to be written in between, which the second time and the end of the process would trip over.
        """
        if self._closed:
            self._store.cache.clear()
            return
        self._closed = True
        super().close()

    def setup_schedule(self) -> None:
        """Start from the entries that the app was given."""
        self._in_force = policies.book().schedules
        if not _alone():
            logger.warning("another beat runs in %s: one is enough, two do no harm", settings.state_dir)
            self.schedule_filename = f"{self.schedule_filename}-{os.getpid()}"
        super().setup_schedule()


settings = or_exit(Settings.load)
policies = or_exit(lambda: PolicyFile(settings.policy_file, SlidingWindow(settings.letta_sliding_window)))
app = or_exit(lambda: make_app("scheduler", settings))
or_exit(settings.make_state_dir)
app.conf.update(
    timezone=policies.book().timezone,
    beat_schedule={entry.name: beat_entry(entry) for entry in entries(policies.book(), settings)},
    beat_scheduler="scheduler.celery:PolicyScheduler",
    beat_schedule_filename=str(settings.state_dir / "beat-schedule"),
    # Written after each tick: a beat that was killed does not send the last tick twice.
    beat_sync_every=1,
    # What beat sends is told by the worker that takes it; what is sent every few seconds is not told at all.
    task_send_sent_event=False,
    # Beat looks up at least this often, so that a change of the file is in force soon.
    beat_max_loop_interval=5,
)
