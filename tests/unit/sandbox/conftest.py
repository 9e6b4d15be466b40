from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.sandbox import sandbox_process


class Box:
    """A sandbox that runs, and the few requests that most tests make."""

    def __init__(self, base_url: str, process: Any) -> None:
        self.http = httpx.Client(base_url=base_url, timeout=30, trust_env=False)
        self.base_url = base_url
        self.process = process

    def agent(self, **fields: Any) -> str:
        answer = self.http.post("/v1/agents/", json={"name": "agent", "context_window_limit": 16_000, **fields})
        return str(answer.raise_for_status().json()["id"])

    def conversation(self, agent: str | None = None, pairs: int = 0, chars: int = 300) -> str:
        created = self.http.post("/v1/conversations/", params={"agent_id": agent or self.agent()})
        conversation = str(created.raise_for_status().json()["id"])
        if pairs:
            self.send(conversation, *history(pairs, chars))
        return conversation

    def send(self, conversation: str, *messages: dict[str, str], **fields: Any) -> Any:
        body = {"messages": list(messages), "streaming": False, **fields}
        return self.http.post(f"/v1/conversations/{conversation}/messages", json=body).raise_for_status().json()

    def context(self, conversation: str) -> list[str]:
        answer = self.http.get(f"/v1/conversations/{conversation}").raise_for_status()
        return list(answer.json()["in_context_message_ids"])

    def listed(self, conversation: str, **params: Any) -> list[dict[str, Any]]:
        answer = self.http.get(f"/v1/conversations/{conversation}/messages", params=params).raise_for_status()
        return list(answer.json())

    def overview(self, agent: str, conversation: str | None = None) -> dict[str, Any]:
        params = {"conversation_id": conversation} if conversation else {}
        return dict(self.http.get(f"/v1/agents/{agent}/context", params=params).raise_for_status().json())

    def compact(self, conversation: str, agent: str | None = None, **settings: Any) -> httpx.Response:
        body = {"agent_id": agent, "compaction_settings": settings} if settings or agent else None
        return self.http.post(f"/v1/conversations/{conversation}/compact", json=body)

    def log(self, conversation: str) -> dict[str, Any]:
        return dict(self.http.get("/sandbox/compactions").json()[conversation])

    def faults(self, *faults: dict[str, Any] | str, seed: int = 1) -> None:
        self.http.post("/sandbox/faults", json={"faults": list(faults), "seed": seed}).raise_for_status()

    def latency(self, **delays: float) -> None:
        self.http.post("/sandbox/latency", json=delays).raise_for_status()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def history(pairs: int, chars: int) -> list[dict[str, str]]:
    """So many pairs of messages; the last one is the user's, and the agent's reply completes it."""
    told: list[dict[str, str]] = []
    for number in range(pairs):
        told.append(user(f"Question {number} about topic {number}. ".ljust(chars, "q")))
        told.append({"role": "assistant", "content": f"Answer {number} to question {number}. ".ljust(chars, "a")})
    return told[:-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Start a sandbox of the test's own, with the options that it needs."""
    with ExitStack() as stack:

        def run(*options: str, database: Path | None = None, **environment: str) -> Box:
            file = database or tmp_path / "sandbox.db"
            child = stack.enter_context(sandbox_process(file, *options, environment=environment))
            box = Box(child.base_url, child.process)
            stack.callback(box.http.close)
            return box

        yield run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox") / "shared.db") as child:
        box = Box(child.base_url, child.process)
        yield box
        box.http.close()


@pytest.fixture
def box(shared: Box) -> Iterator[Box]:
    """One sandbox for many tests: each makes agents of its own, and leaves no fault and no delay behind."""
    yield shared
    shared.faults()
    shared.latency(latency=0, compact_latency=0, reply_latency=0)
