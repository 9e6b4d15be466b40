"""Flower as an operator runs it: the command, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.service import START_SECONDS, Process, Service, wait_until

USER, PASSWORD = "watch", "passw0rd-of-the-tests"

LOGIN = f"{USER}:{PASSWORD}"


@dataclass(frozen=True)
class Flower:
    """Running pages. url: without a slash at its end."""

    url: str
    process: Process

    def get(self, path: str, *, login: tuple[str, str] | None = (USER, PASSWORD), **params: Any) -> httpx.Response:
        """GET a page."""
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            return http.get(f"{self.url}{path}", auth=login, params=params)

    def post(self, path: str, body: Any) -> httpx.Response:
        """POST as somebody who has logged in."""
        with httpx.Client(trust_env=False, timeout=30.0) as http:
            return http.post(f"{self.url}{path}", auth=(USER, PASSWORD), json=body)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What it knows of every task, by the task's id."""
        found: dict[str, dict[str, Any]] = self.get("/api/tasks").raise_for_status().json()
        return found


@contextmanager
def running_flower(service: Service, **settings: str) -> Iterator[Flower]:
    """Start `compactor flower` on a deployment, with the tests' login; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    environment = service.environment | {"COMPACTOR_FLOWER_AUTH": LOGIN, "COMPACTOR_FLOWER_PORT": port} | settings
    prefix = settings.get("COMPACTOR_FLOWER_URL_PREFIX", "")
    url = f"http://127.0.0.1:{port}/{prefix}".rstrip("/")
    log = service.folder / f"flower-{port}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "flower"],
            env=environment,
            cwd=service.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    flower = Flower(url, Process(popen, log))
    try:
        wait_until(lambda: _answers(flower) or popen.poll() is not None, START_SECONDS, flower.process.text)
        if popen.poll() is not None:
            raise AssertionError(f"Flower ended with {popen.returncode}:\n{flower.process.text()}")
        yield flower
    finally:
        flower.process.stop()


def _answers(flower: Flower) -> bool:
    try:
        return flower.get("/healthcheck", login=None).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
