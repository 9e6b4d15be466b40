"""Whose conversation an id names: what everybody who is given an id by somebody else has to find out first."""

from __future__ import annotations

from worker.letta.client import DEFAULT, Letta
from worker.measure import Ref

AGENTS = "agent-"
"""How an agent's id begins; in the place of a conversation's it means the agent's own conversation."""


class Misaddressed(Exception):
    """The ids name no conversation, or contradict each other; the message says how."""


async def whose(letta: Letta, conversation_id: str, agent_id: str | None) -> Ref:
    """Find out whose conversation it is: one request, none for an agent's own.

    Raises Misaddressed, and LettaError, NotFound among them.
    """
    if conversation_id == DEFAULT:
        if agent_id is None:
            raise Misaddressed("the conversation 'default' is an agent's own: name the agent too")
        return Ref(agent_id, DEFAULT)
    if conversation_id.startswith(AGENTS):
        return Ref(conversation_id, DEFAULT)
    found = await letta.retrieve_conversation(conversation_id)
    if agent_id is not None and agent_id != found.agent_id:
        raise Misaddressed(f"{conversation_id} belongs to {found.agent_id}, not to {agent_id}")
    return Ref(found.agent_id, conversation_id)
