"""A Letta server in memory: the answers that a test gives it by path, without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from worker.letta.client import Letta

AGENT = "agent-1"
CONVERSATION = "conv-1"


class FakeLetta:
    """Answers each path as told, 404 for any other; `asked` holds the requests as `METHOD path?query`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, httpx.Response] = {}

    def answer(self, path: str, document: Any = None, *, status: int = 200, text: str | None = None) -> None:
        """Answer a path with a JSON document, or with a text that is none."""
        content = json.dumps(document) if text is None else text
        self._answers[path] = httpx.Response(status, content=content, headers={"content-type": "application/json"})

    def fail(self, path: str, status: int, detail: str = "no") -> None:
        """Answer a path with an error as the server words it."""
        self.answer(path, {"detail": detail}, status=status)

    def overview(self, *messages: dict[str, Any], agent: str = AGENT, **fields: Any) -> None:
        """Answer the context overview; the figures are those of a real server with 590 tokens besides messages."""
        shown = {
            "context_window_size_max": 16_000,
            "context_window_size_current": 12_000,
            "num_messages": len(messages),
            "num_tokens_system": 490,
            "num_tokens_core_memory": 100,
            "num_tokens_messages": 11_410,
            "messages": list(messages),
        }
        self.answer(f"/v1/agents/{agent}/context", shown | fields)

    def conversation(self, *ids: str, **fields: Any) -> None:
        """Answer the retrieval of the conversation."""
        document = {"id": CONVERSATION, "agent_id": AGENT, "in_context_message_ids": list(ids), **fields}
        self.answer(f"/v1/conversations/{CONVERSATION}", document)

    def messages(self, *rows: dict[str, Any], conversation: str = CONVERSATION) -> None:
        """Answer the conversation's list of messages."""
        self.answer(f"/v1/conversations/{conversation}/messages", list(rows))

    def agent(self, **fields: Any) -> None:
        """Answer the retrieval of the agent, whose window is 16,000 tokens."""
        self.answer(f"/v1/agents/{AGENT}", {"id": AGENT, "llm_config": {"context_window": 16_000}, **fields})

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Letta]:
        """The service's client, connected to it."""
        transport = httpx.MockTransport(self._play)
        async with httpx.AsyncClient(base_url="http://letta.test", transport=transport) as http:
            yield Letta(http)

    def _play(self, request: httpx.Request) -> httpx.Response:
        query = request.url.query.decode()
        self.asked.append(f"{request.method} {request.url.path}{'?' if query else ''}{query}")
        found = self._answers.get(request.url.path)
        if found is None:
            return httpx.Response(404, json={"detail": f"there is no {request.url.path}"})
        return httpx.Response(found.status_code, content=found.content, headers=found.headers)
