"""Celery's processes on the service's own log: Celery leaves it alone, and each line knows its task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import signals

from worker.logs.about import begin_task, end_task
from worker.logs.masks import Masks
from worker.logs.setup import configure
from worker.names import ASSESS, ATTEND, COMPACT, NOTIFY, SCAN
from worker.settings import Settings
from worker.telemetry import tracing

ABOUT = {COMPACT: "compaction_id", SCAN: "scan_id", ASSESS: "scan_id"}
"""What a task's first argument is the id of: its last line, after everything has been put away, is about it too."""

EVERY_FEW_SECONDS = frozenset({ATTEND, NOTIFY})
"""Tasks that mostly find nothing; what they find is told by themselves."""

SPEAKERS = ("celery.app.trace", "celery.beat", "celery.worker.strategy")
"""Who tells of each task that it was sent, came and went."""

_UID = "compactor"


class Unseen(logging.Filter):
    """Leaves out that a task of every few seconds was sent, came and went well."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be seen."""
        if record.levelno != logging.INFO:
            return True
        args = record.args
        named = (args.get("name"),) if isinstance(args, dict) else args or ()
        return not any(isinstance(name, str) and name in EVERY_FEW_SECONDS for name in named)


_unseen = Unseen()


def install(process: str, settings: Settings) -> None:
    """Have this process's log and its traces set up where Celery would do it; the settings' level holds.

    process: its name in the traces.
    """

    def setup(instance: Any = None, **_: Any) -> None:
        form = configure(settings)
        tracing.start(process, Masks.of(settings).text)
        for name in SPEAKERS:
            logging.getLogger(name).addFilter(_unseen)
        if instance is not None and form == "json":
            # A worker's banner is for people.
            instance.quiet = True

    # A worker opens the service before it sets its log up: what goes wrong by then is to be told like the rest.
    signals.celeryd_init.connect(setup, weak=False, dispatch_uid=_UID)
    signals.setup_logging.connect(setup, weak=False, dispatch_uid=_UID)
    signals.task_prerun.connect(_begin, dispatch_uid=_UID)
    signals.task_postrun.connect(_end, dispatch_uid=_UID)


def _begin(task_id: str, task: Any, args: Sequence[Any] = (), **_: Any) -> None:
    ids = {ABOUT[task.name]: str(args[0])} if task.name in ABOUT and args else {}
    begin_task(task.name, task_id, **ids)


def _end(**_: Any) -> None:
    end_task()
