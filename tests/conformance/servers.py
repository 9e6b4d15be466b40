"""The two servers that the same tests run against: the real Letta, and the sandbox that stands in for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conformance.model_standin import ModelStandin
from tests.conformance.real_letta import RealLetta, running_letta
from tests.support import sandbox as support
from tests.support.network import quiet_port

KEY = "conformance-key-0123456789"
"""Both servers ask for it, so that every request of the suite proves that the client sends it."""


STEP_COMPLETE_KEY = "conformance-step-key"
WEBHOOK_PORT = quiet_port()
"""Where both servers send their own webhook to. Most tests leave nobody there to hear it."""

STEP_COMPLETE = {
    "STEP_COMPLETE_WEBHOOK": f"http://127.0.0.1:{WEBHOOK_PORT}/webhooks/letta/step-complete",
    "STEP_COMPLETE_KEY": STEP_COMPLETE_KEY,
}


class ServerUnderTest(ABC):
    """A running server and the few things about it that its API does not steer."""

    kind: str
    base_url: str

    def http(self) -> httpx.Client:
        """A plain client, for what the service itself never asks: seeding, and requests that are wrong on purpose."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=120.0, trust_env=False)

    @abstractmethod
    def summaries_take(self, seconds: float) -> None:
        """Set how long the summarizer thinks."""

    @abstractmethod
    def replies_take(self, seconds: float) -> None:
        """Set how long the agents' model thinks."""

    @abstractmethod
    def summaries_paid(self) -> int:
        """How often the summarizer has been called since the start."""

    def calm(self) -> None:
        """Back to no latency."""
        self.summaries_take(0)
        self.replies_take(0)


@dataclass
class RealServer(ServerUnderTest):
    """The real Letta; `model` is the stand-in of its model's provider."""

    letta: RealLetta
    kind: str = "real"

    @property
    def base_url(self) -> str:  # type: ignore[override]
        """The server's address, without `/v1`."""
        return self.letta.base_url

    @property
    def model(self) -> ModelStandin:
        """What answers Letta instead of OpenAI."""
        return self.letta.model

    def summaries_take(self, seconds: float) -> None:
        self.model.summary_latency = seconds

    def replies_take(self, seconds: float) -> None:
        self.model.latency = seconds

    def summaries_paid(self) -> int:
        return self.model.summaries

    def calm(self) -> None:
        self.model.reset()


@dataclass
class SandboxServer(ServerUnderTest):
    """The sandbox, in a process of its own."""

    base_url: str
    kind: str = "sandbox"

    def summaries_take(self, seconds: float) -> None:
        self._steer(compact_latency=seconds)

    def replies_take(self, seconds: float) -> None:
        self._steer(reply_latency=seconds)

    def summaries_paid(self) -> int:
        with self.http() as http:
            counts: dict[str, dict[str, Any]] = http.get("/sandbox/compactions").raise_for_status().json()
        return sum(int(count["summarizer_calls"]) for count in counts.values())

    def _steer(self, **latencies: float) -> None:
        with self.http() as http:
            http.post("/sandbox/latency", json=latencies).raise_for_status()


@contextmanager
def running_real() -> Iterator[RealServer]:
    """Start the real server, with its password on."""
    with running_letta(LETTA_SERVER_SECURE="true", LETTA_SERVER_PASSWORD=KEY, **STEP_COMPLETE) as letta:
        yield RealServer(letta)


@contextmanager
def running_sandbox(folder: Path) -> Iterator[SandboxServer]:
    """Start an empty sandbox with its files in `folder`; RuntimeError with its log's end if it does not come up."""
    with support.running_sandbox(folder, STEP_COMPLETE, api_key=KEY) as sandbox:
        yield SandboxServer(sandbox.base_url)
