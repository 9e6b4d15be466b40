"""The sandbox as a process of its own, for tests that want a server they can ask and steer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 30.0
STOP_SECONDS = 20.0

READY = "sandbox ready at "

Option = str | int | float | Path | Sequence[str]


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox. base_url: without `/v1`; api_key: the one that it asks for, if any."""

    base_url: str
    api_key: str | None
    process: subprocess.Popen[bytes]

    def http(self) -> httpx.Client:
        """A plain client, for seeding and for what the service never asks."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=60.0, trust_env=False)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a GET."""
        with self.http() as http:
            return http.get(path, params=params).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST."""
        with self.http() as http:
            return http.post(path, json=body).raise_for_status().json()

    def compactions(self) -> dict[str, dict[str, Any]]:
        """What was compacted, by conversation: `requests effective refused summarizer_calls history`."""
        counts: dict[str, dict[str, Any]] = self.get("/sandbox/compactions")
        return counts

    def requests(self) -> dict[str, int]:
        """How often each method and path was asked for."""
        counts: dict[str, int] = self.get("/sandbox/requests")
        return counts

    def set_faults(self, *faults: str | dict[str, Any], seed: int = 1) -> None:
        """Put these faults in force and no others; none at all ends them."""
        self.post("/sandbox/faults", {"faults": list(faults), "seed": seed})

    def set_latency(self, **latencies: float | str) -> None:
        """Change `latency`, `compact_latency` or `reply_latency`, in seconds."""
        self.post("/sandbox/latency", latencies)


@contextmanager
def running_sandbox(
    folder: Path, environment: Mapping[str, str] | None = None, /, **options: Option
) -> Iterator[Sandbox]:
    """Start a sandbox with its files in `folder` and stop it at the end.

    environment: added to this process's; options: the command line's, with underscores for dashes; a list gives an
    option several times. RuntimeError with the end of its log if it does not come up.
    """
    key = options.get("api_key")
    with sandbox_process(folder / "sandbox.db", *_arguments(options), environment=environment) as running:
        yield replace(running, api_key=None if key is None else str(key))


@contextmanager
def sandbox_process(database: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Sandbox]:
    """The same on a database file of one's choice, with the command line as it is; its log lies beside the file."""
    log = database.with_suffix(".log")
    command = [sys.executable, "-m", "sandbox", "--database", str(database), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Sandbox(_address(process, log), None, process)
    finally:
        _stop(process)


def _arguments(options: dict[str, Option]) -> list[str]:
    arguments: list[str] = []
    for name, value in options.items():
        values = [value] if isinstance(value, str | int | float | Path) else value
        for one in values:
            arguments += [f"--{name.replace('_', '-')}", str(one)]
    return arguments


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        _, found, rest = log.read_text(errors="replace").partition(READY)
        if found and "\n" in rest:
            return rest.split()[0]
        time.sleep(0.02)
    raise RuntimeError(f"the sandbox did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
