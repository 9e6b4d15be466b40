"""`compactor flower` as a process: whom it lets in, what it refuses to start on, what outlives it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.flower import CONFIGURATION
from tests.support.flower import LOGIN, running_flower
from tests.support.service import Service, deployed, wait_until
from worker.broker import CeleryOutbox, make_app
from worker.settings import Settings

NOWHERE = "http://127.0.0.1:9"
"""A Letta server that nobody asks anything."""

EVENT_SECONDS = 20.0


@pytest.fixture
def service(tmp_path: Path, redis_url: str, sqlite_url: str) -> Iterator[Service]:
    with deployed(tmp_path, letta_url=NOWHERE, broker_url=redis_url, database_url=sqlite_url) as made:
        yield made


def flower_itself(service: Service, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Flower's own command on our file, as somebody may who knows Celery."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "flower", f"--conf={CONFIGURATION}", *options],
        env=service.environment,
        cwd=service.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused
def test_it_does_not_start_without_a_login_where_others_reach_it(service: Service, host: str) -> None:
    said = service.compactor("flower", expect=2, COMPACTOR_FLOWER_HOST=host)
    assert f"COMPACTOR_FLOWER_AUTH is not set: Flower listens on {host}" in said.stderr
    assert "Traceback" not in said.stderr


def test_flowers_own_command_is_refused_too_also_when_its_options_say_otherwise(service: Service) -> None:
    service.environment["COMPACTOR_FLOWER_HOST"] = "127.0.0.1"
    done = flower_itself(service, "--address=0.0.0.0")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "COMPACTOR_FLOWER_AUTH is not set: Flower listens on 0.0.0.0" in done.stderr


def test_on_loopback_it_may_do_without_a_login(service: Service) -> None:
    with running_flower(service, COMPACTOR_FLOWER_AUTH="") as flower:
        assert flower.get("/tasks", login=None).status_code == 200
        assert "no login: it listens on this machine alone" in flower.process.text()
        # Its programs' interface it never opens to everybody.
        assert flower.get("/api/tasks", login=None).status_code == 401


def test_it_says_where_it_is_and_who_logs_in_but_never_the_password(service: Service) -> None:
    with running_flower(service) as flower:
        said = flower.process.text()
    user, _, password = LOGIN.partition(":")
    assert f"Flower is at {flower.url} (user {user}, its password is in COMPACTOR_FLOWER_AUTH)" in said
    assert password not in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_named(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = service.compactor("flower", expect=1, COMPACTOR_FLOWER_PORT=str(port))
    assert f"Flower cannot listen on 127.0.0.1:{port}: Address already in use" in said.stderr
    assert "choose another COMPACTOR_FLOWER_PORT" in said.stderr


def test_without_a_broker_it_says_what_to_set(service: Service) -> None:
    del service.environment["COMPACTOR_BROKER_URL"]
    assert "COMPACTOR_BROKER_URL is not set" in service.compactor("flower", expect=2).stderr


def test_it_is_served_under_a_prefix_behind_a_proxy(service: Service) -> None:
    with running_flower(service, COMPACTOR_FLOWER_URL_PREFIX="ops/flower") as flower:
        assert flower.url.endswith("/ops/flower")
        page = flower.get("/tasks")
        assert page.status_code == 200
        assert 'href="/ops/flower/workers"' in page.text
        assert flower.get("/metrics", login=None).status_code == 200


def test_what_it_has_seen_outlives_a_restart(service: Service) -> None:
    app = make_app("test", Settings.load(service.environment, directory=service.folder))
    outbox = CeleryOutbox(app)
    with running_flower(service) as first:

        def seen() -> bool:
            # Sent again and again: whether it listens already, nobody says.
            outbox.compaction("cmp-1", told="nightly, usage 0.83: conv-1 of agent-1 (0.40 expected)")
            return bool(first.tasks())

        wait_until(seen, EVENT_SECONDS, first.process.text)
    app.close()
    assert not outbox.failed
    with running_flower(service) as second:
        told = {task["args"] for task in second.tasks().values()}
    assert told == {"nightly, usage 0.83: conv-1 of agent-1 (0.40 expected)"}
