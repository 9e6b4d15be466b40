"""Flower, the pages on which operators watch the tasks: one command, here and in production.

`compactor flower` checks the settings and then becomes `celery -A worker flower --conf=ops/flowerconfig.py`: what
runs under `compactor up`, in a container and as a unit of systemd is the same command and the same file.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from celery.events.state import Task

from ops import desk
from ops.listening import base_url, free_port, why_not
from ops.process import Child
from worker.configuration.part import is_loopback
from worker.settings import Settings, SettingsError

CONFIGURATION = Path(__file__).with_name("flowerconfig.py")

USER = "compactor"
"""Who logs in where `up` made the login up."""

PASSWORD_BYTES = 12

GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL: it saves its history."""


def flower_command() -> None:
    """Serve Flower's pages: every task in a line, what it did, what failed and why.

    It listens on COMPACTOR_FLOWER_HOST and COMPACTOR_FLOWER_PORT. Everywhere but on loopback it needs a login,
    COMPACTOR_FLOWER_AUTH. Nothing can be changed from the pages. Start it after a worker.

    Example: `COMPACTOR_FLOWER_AUTH=me:some-password compactor flower`.
    """
    settings = desk.settings()
    settings.require_broker()
    require_login(settings)
    settings.make_state_dir()
    taken = why_not(settings.flower_host, settings.flower_port)
    if taken is not None:
        where = f"{settings.flower_host}:{settings.flower_port}"
        desk.fail(f"Flower cannot listen on {where}: {taken}; choose another COMPACTOR_FLOWER_PORT")
    desk.out.print(f"Flower is at {address(settings)} ({login(settings)})", markup=False, soft_wrap=True)
    sys.stdout.flush()
    argv = [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "flower", f"--conf={CONFIGURATION}"]
    os.execv(sys.executable, argv)  # noqa: S606 - no shell is what is wanted


def require_login(settings: Settings) -> None:
    """Refuse to show the pages to everybody: raises SettingsError that says what to set."""
    if settings.flower_auth is None and not is_loopback(settings.flower_host):
        raise SettingsError(
            f"COMPACTOR_FLOWER_AUTH is not set: Flower listens on {settings.flower_host}, where others reach it, and "
            "needs a login, user:password; on 127.0.0.1 it may do without one"
        )


def address(settings: Settings) -> str:
    """Give the pages' URL as it is reached from this machine."""
    url = base_url(settings.flower_host, settings.flower_port)
    return f"{url}/{settings.flower_url_prefix}" if settings.flower_url_prefix else url


def login(settings: Settings) -> str:
    """Say how to log in, without the password."""
    if settings.flower_auth is None:
        return "no login: it listens on this machine alone"
    user, _, _ = settings.flower_auth.get_secret_value().partition(":")
    return f"user {user}, its password is in COMPACTOR_FLOWER_AUTH"


def way_in(settings: Settings, *, usual: Settings) -> str:
    """Say where the pages are and how to log in; a password that `up` made up can be read nowhere else."""
    moved = f", since port {usual.flower_port} is taken" if settings.flower_port != usual.flower_port else ""
    how = login(settings)
    if usual.flower_auth is None and settings.flower_auth is not None:
        user, _, password = settings.flower_auth.get_secret_value().partition(":")
        how = f"user {user}, password {password}"
    return f"the tasks are shown at {address(settings)}{moved} ({how})"


def for_up(settings: Settings) -> dict[str, str]:
    """Choose what `up` lacks: a login, and a free port where the usual one is taken.

    A port that the settings name is kept: somebody else knows of it.
    """
    chosen = {}
    if settings.flower_auth is None:
        chosen["COMPACTOR_FLOWER_AUTH"] = f"{USER}:{secrets.token_urlsafe(PASSWORD_BYTES)}"
    if "flower_port" not in settings.model_fields_set and why_not(settings.flower_host, settings.flower_port):
        chosen["COMPACTOR_FLOWER_PORT"] = str(free_port())
    return chosen


def child(settings: Settings, environment: Mapping[str, str]) -> Child:
    """Give Flower's process, to be started after the worker: one that is there first does not see it for a while."""
    argv = [sys.executable, "-m", "ops.cli", "flower"]
    return Child("flower", argv, environment, ready=partial(_answers, settings), grace=GRACE)


def told(task: Task) -> Task:
    """Put a task into the words of the pages: what went wrong stands where others have their result."""
    if task.exception is not None:
        task.result = task.exception
    task.traceback = None
    return task


def _answers(settings: Settings) -> bool:
    host, _, port = base_url(settings.flower_host, settings.flower_port).removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=1)
    try:
        prefix = f"/{settings.flower_url_prefix}" if settings.flower_url_prefix else ""
        connection.request("GET", f"{prefix}/healthcheck")
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()
