"""Conversations of a chosen size on either server, made over the API alone and in as few requests as it takes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.conformance.servers import ServerUnderTest

MODEL = "openai-proxy/gpt-4o-mini"
"""What the real server calls its model when OpenAI's base URL is another one."""

SYSTEM = "<base_instructions>\nYou are a helpful assistant with a memory.\n</base_instructions>"
"""The same short prompt on both servers, so that their contexts are of nearly the same size."""

FILLER = "lorem ipsum dolor sit amet "


@dataclass(frozen=True)
class Seeded:
    """A conversation and its agent; the conversation id is `default` for an agent's own."""

    agent_id: str
    conversation_id: str


def create_agent(server: ServerUnderTest, *, window: int = 16_000, **more: Any) -> str:
    """Make an agent without tools whose model has a context window of `window` tokens; returns its id."""
    body = {
        "name": f"agent {uuid.uuid4().hex}",
        "model": MODEL,
        "system": SYSTEM,
        "context_window_limit": window,
        "memory_blocks": [{"label": "human", "value": "Name: Ada."}, {"label": "persona", "value": "Helpful."}],
        "include_base_tools": False,
        "agent_type": "letta_v1_agent",
    }
    return str(_post(server, "/v1/agents/", body | more)["id"])


def create_conversation(server: ServerUnderTest, agent_id: str) -> str:
    """Make a conversation in which nothing was said yet; returns its id."""
    return str(_post(server, f"/v1/conversations/?agent_id={agent_id}", {})["id"])


def seed_conversation(
    server: ServerUnderTest,
    *,
    pairs: int = 20,
    window: int = 16_000,
    text_chars: int = 300,
    agent_id: str | None = None,
    last_message_at: datetime | None = None,
) -> Seeded:
    """Make a conversation of `pairs` questions and answers of `text_chars` characters each.

    Without `agent_id` it gets an agent of its own, with a window of `window` tokens. `last_message_at` makes it look as
    old as that. Twenty pairs of 300 characters are about 3,600 tokens, of 600 about 6,600.
    """
    agent_id = agent_id or create_agent(server, window=window)
    seeded = Seeded(agent_id, create_conversation(server, agent_id))
    if pairs:
        say(server, seeded, *history(pairs, text_chars))
    if last_message_at is not None:
        with server.http() as http:
            patch = {"last_message_at": last_message_at.isoformat()}
            http.patch(f"/v1/conversations/{seeded.conversation_id}", json=patch).raise_for_status()
    return seeded


def seed_default(server: ServerUnderTest, *, pairs: int = 20, window: int = 16_000, text_chars: int = 300) -> Seeded:
    """Make an agent and fill its default conversation, as `seed_conversation` does another."""
    seeded = Seeded(create_agent(server, window=window), "default")
    say(server, seeded, *history(pairs, text_chars))
    return seeded


def say(server: ServerUnderTest, seeded: Seeded, *messages: dict[str, str]) -> dict[str, Any]:
    """Send messages, the last of them the user's; the agent adds one answer. Returns the reply."""
    body: dict[str, Any] = {"messages": list(messages), "streaming": False}
    if seeded.conversation_id == "default":
        body["agent_id"] = seeded.agent_id
    return _post(server, f"/v1/conversations/{seeded.conversation_id}/messages", body)


def user(text: str) -> dict[str, str]:
    """A message of the user's."""
    return {"role": "user", "content": text}


def history(pairs: int, text_chars: int) -> Iterator[dict[str, str]]:
    """Questions and answers, without the last answer, which the agent gives itself."""
    for turn in range(pairs):
        text = f"{turn} {FILLER * (text_chars // len(FILLER) + 1)}"[:text_chars]
        yield user(text)
        if turn < pairs - 1:
            yield {"role": "assistant", "content": f"You said: {text}"[:text_chars]}


def _post(server: ServerUnderTest, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with server.http() as http:
        answer = http.post(path, json=body)
    if not answer.is_success:
        raise RuntimeError(f"seeding failed: POST {path} answered {answer.status_code}: {answer.text[:300]}")
    document: dict[str, Any] = answer.json()
    return document
