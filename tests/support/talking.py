"""Conversations on a sandbox that somebody talks in."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.sandbox import Sandbox

WINDOW = 16_000
FILLER = "and what else is there to be said about it? "


@dataclass(frozen=True)
class Talk:
    """A conversation with a window of 16,000 tokens."""

    sandbox: Sandbox
    agent_id: str
    conversation_id: str

    def say(self, text: str = "hello", *, before: list[dict[str, str]] | None = None, streamed: bool = True) -> None:
        """Send a message and read the answer to its end. before: messages that go with it, ahead of it."""
        body = {"messages": [*(before or []), {"role": "user", "content": text}], "streaming": streamed}
        with (
            self.sandbox.http() as http,
            http.stream("POST", f"/v1/conversations/{self.conversation_id}/messages", json=body) as answer,
        ):
            answer.raise_for_status().read()

    def fill(self, usage: float) -> None:
        """Talk until the context is this full, in one send."""
        history = []
        for turn in range(int(usage * WINDOW / 600)):
            history += [{"role": role, "content": f"{turn} {FILLER * 24}"[:1_120]} for role in ("user", "assistant")]
        self.say(before=history)

    def usage(self) -> float:
        """How full it is, by the server's own count."""
        shown = self.sandbox.get(f"/v1/agents/{self.agent_id}/context", conversation_id=self.conversation_id)
        return float(shown["context_window_size_current"] / shown["context_window_size_max"])


def talk(sandbox: Sandbox) -> Talk:
    """Begin a conversation with an agent of its own."""
    body = {
        "name": "agent of a talk",
        "model": "openai-proxy/gpt-4o-mini",
        "system": "You are a helpful assistant.",
        "context_window_limit": WINDOW,
        "memory_blocks": [],
        "include_base_tools": False,
        "agent_type": "letta_v1_agent",
    }
    agent_id = str(sandbox.post("/v1/agents/", body)["id"])
    with sandbox.http() as http:
        made = http.post("/v1/conversations/", params={"agent_id": agent_id}, json={}).raise_for_status().json()
    return Talk(sandbox, agent_id, str(made["id"]))
