"""Which conversation a request is about: one of the list, or an agent's default conversation."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.ids import DEFAULT_CONVERSATION, insist_on_format
from sandbox.messages import Stored
from sandbox.store import Agent, Store, conversation_key


@dataclass(frozen=True)
class Target:
    """A conversation and its agent; `conversation_id` is None for the agent's default conversation."""

    agent: Agent
    conversation_id: str | None

    @property
    def key(self) -> str:
        """The name under which the compactions of this conversation are logged."""
        return conversation_key(self.agent["id"], self.conversation_id)


def find(store: Store, path_id: str, agent_id: str | None) -> Target:
    """Find what a path names: a conversation, `default` with an agent's id, or (deprecated) an agent's id alone.

    Raises `NotFound`, also for `default` without an agent, and `BadRequest` for what is no agent's id.
    """
    direct = default_agent(path_id, agent_id)
    if direct is not None:
        insist_on_format("agent", direct)
        return Target(store.agent(direct), None)
    conversation = store.conversation(path_id)
    return Target(store.agent(conversation["agent_id"]), conversation["id"])


def default_agent(path_id: str, agent_id: str | None) -> str | None:
    """Return the agent whose default conversation a path means, or None when it means a conversation of the list."""
    if path_id == DEFAULT_CONVERSATION and agent_id:
        return agent_id
    return path_id if path_id.startswith("agent-") else None


def in_context_ids(store: Store, target: Target) -> list[str]:
    """Return the ids of a conversation's context as they are now."""
    if target.conversation_id is None:
        ids: list[str] = store.agent(target.agent["id"])["message_ids"]
        return ids
    return store.in_context_ids(target.conversation_id)


def in_context(store: Store, target: Target) -> list[Stored]:
    """Return the messages of a conversation's context as they are now, system message first."""
    return store.messages(in_context_ids(store, target))
