"""Celery's processes on the service's own log: Celery leaves it alone, and each line knows its task."""

from __future__ import annotations

from typing import Any

from celery import signals

from worker import tracing
from worker.logs.about import begin_task, end_task
from worker.logs.masks import Masks
from worker.logs.setup import configure
from worker.settings import Settings

_UID = "compactor"


def install(process: str, settings: Settings) -> None:
    """Have this process's log and its traces set up where Celery would do it; the settings' level holds.

    process: its name in the traces.
    """

    def setup(instance: Any = None, **_: Any) -> None:
        form = configure(settings)
        tracing.start(process, Masks.of(settings).text)
        if instance is not None and form == "json":
            # A worker's banner is for people.
            instance.quiet = True

    # A worker opens the service before it sets its log up: what goes wrong by then is to be told like the rest.
    signals.celeryd_init.connect(setup, weak=False, dispatch_uid=_UID)
    signals.setup_logging.connect(setup, weak=False, dispatch_uid=_UID)
    signals.task_prerun.connect(_begin, dispatch_uid=_UID)
    signals.task_postrun.connect(_end, dispatch_uid=_UID)


def _begin(task_id: str, task: Any, **_: Any) -> None:
    begin_task(task.name, task_id)


def _end(**_: Any) -> None:
    end_task()
