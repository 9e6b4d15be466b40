"""What the tasks' events say of errors: everybody who may look at Flower reads them.

Celery sends the repr of any exception, with its traceback. Those of libraries quote what they worked on, a summary or
an address with a password in it; so only errors that were written for operators are told, and no traceback ever is.
The worker's log has the rest.
"""

from __future__ import annotations

from typing import Any

from celery.app.task import Task
from celery.worker.request import Request

from worker.audit.database import LedgerError
from worker.letta.detail import clip
from worker.telemetry.telling import TaskFailed

OPERATORS_ERRORS = (TaskFailed, LedgerError)


def told(error: BaseException | None) -> str:
    """Put an error into the words of the pages."""
    if isinstance(error, OPERATORS_ERRORS):
        return clip(str(error))
    return f"{type(error).__name__}, a fault of the service itself: the worker's log has the traceback"


class PlainRequest(Request):
    """A task under way in a worker, whose events carry no traceback."""

    _error: BaseException | None = None

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep the error for the event that is about to be sent."""
        self._error = getattr(exc_info.exception, "exc", exc_info.exception)
        return super().on_failure(exc_info, *args, **kwargs)

    def on_retry(self, exc_info: Any) -> Any:
        """Keep the error that the task is to be tried again for."""
        self._error = getattr(exc_info.exception, "exc", exc_info.exception)
        return super().on_retry(exc_info)

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's signature
        """Send an event; an error is told in the operator's words."""
        if "exception" in fields:
            fields |= {"exception": told(self._error), "traceback": None}
        return super().send_event(type, **fields)


class PlainTask(Task):  # type: ignore[type-arg] # generic in the stubs alone
    """A task whose events are plain, and which keeps its words when it is tried again."""

    Request = f"{__name__}:{PlainRequest.__name__}"

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: str | None = None, **options: Any
    ) -> Any:
        """Give what is sent for another attempt, told as the first one was."""
        now = self.request if request is None else request
        words = {name: now.get(name) for name in ("argsrepr", "kwargsrepr") if now.get(name) is not None}
        return super().signature_from_request(request, args, kwargs, queue, **(words | options))
