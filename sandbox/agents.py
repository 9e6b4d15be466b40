"""Making agents and conversations, and showing agents as the API does."""

from __future__ import annotations

import random
from typing import Any

from sandbox.bodies import CreateAgent
from sandbox.ids import DEFAULT_CONVERSATION, USER_ID, new_id, now
from sandbox.messages import Stored, message
from sandbox.prompt import DEFAULT_INSTRUCTIONS, compile_system_message
from sandbox.store import Agent, Conversation, Store

DEFAULT_WINDOW = 32_000
"""The context window, in tokens, of an agent that was made without one."""

MAX_OUTPUT = 4096
"""The tokens that a model may write at once, as the agents' settings say."""

_DEFAULT_COMPACTION = {
    "model": "openai/gpt-5-mini",
    "model_settings": None,
    "prompt": "Summarize what leaves the context, so that the conversation can go on without it.",
    "prompt_acknowledgement": False,
    "clip_chars": 50_000,
    "mode": "sliding_window",
    "sliding_window_percentage": 0.3,
}


def create_agent(store: Store, body: CreateAgent, when: str | None = None, rng: random.Random | None = None) -> Agent:
    """Make an agent with the system message of its default conversation; `rng` decides the ids where it is given."""
    agent_id, system_id = new_id("agent", rng), new_id("message", rng)
    when = when or now()
    configured = body.llm_config or {}
    settings = body.compaction_settings
    agent: Agent = {
        "id": agent_id,
        "created_at": when,
        "updated_at": when,
        "name": body.name,
        "message_ids": [system_id],
        "system": body.system or DEFAULT_INSTRUCTIONS,
        "agent_type": body.agent_type,
        "model": body.model or configured.get("handle") or configured.get("model") or "openai/gpt-4o-mini",
        "window": body.context_window_limit or configured.get("context_window") or DEFAULT_WINDOW,
        "timezone": body.timezone,
        "description": body.description,
        "metadata": body.metadata,
        "tags": body.tags or [],
        "compaction_settings": settings.model_dump() if settings else dict(_DEFAULT_COMPACTION),
        "blocks": [{**block.model_dump(), "id": new_id("block", rng)} for block in body.memory_blocks or []],
        "last_stop_reason": None,
    }
    with store.transaction():
        store.add_agent(agent)
        store.add_messages([_system_message(store, agent, None, system_id, when)])
    return agent


def create_conversation(
    store: Store,
    agent_id: str,
    *,
    summary: str | None = None,
    model: str | None = None,
    when: str | None = None,
    rng: random.Random | None = None,
) -> Conversation:
    """Make a conversation with a system message of its own; like the real answer, without its in-context ids."""
    store.insist_on_agent(agent_id)
    agent = store.agent(agent_id)
    when = when or now()
    conversation: Conversation = {
        "created_by_id": USER_ID,
        "last_updated_by_id": USER_ID,
        "created_at": when,
        "updated_at": when,
        "id": new_id("conv", rng),
        "agent_id": agent_id,
        "summary": summary,
        "in_context_message_ids": [],
        "isolated_block_ids": [],
        "model": model,
        "model_settings": None,
        "last_message_at": None,
    }
    system = _system_message(store, agent, conversation["id"], new_id("message", rng), when)
    with store.transaction():
        store.add_conversation(conversation)
        store.add_messages([system])
        store.attach(conversation["id"], [system["id"]], 0)
    return conversation


def fork(store: Store, agent_id: str, source_ids: list[str], model: str | None) -> Conversation:
    """Make a conversation that shares the messages `source_ids` but the first, and has a system message of its own."""
    conversation = create_conversation(store, agent_id, model=model)
    with store.transaction():
        store.attach(conversation["id"], source_ids[1:], 1)
    return conversation


def compiled_system_message(store: Store, agent: Agent) -> Stored:
    """Return the agent's system message as it would be written now; what the context overview shows."""
    system_id = agent["message_ids"][0]
    return {**_system_message(store, agent, None, system_id, now()), "approvals": None}


def _system_message(store: Store, agent: Agent, conversation_id: str | None, message_id: str, when: str) -> Stored:
    recall = store.count_messages(agent["id"])
    text = compile_system_message(agent, conversation_id or DEFAULT_CONVERSATION, recall, when)
    return message(
        message_id,
        "system",
        text,
        agent_id=agent["id"],
        conversation_id=conversation_id,
        model=agent["model"].rpartition("/")[2],
        created_at=when,
    )


def shown(agent: Agent) -> dict[str, Any]:
    """Return an agent with the fields of Letta's `AgentState`."""
    blocks = [_block(block) for block in agent["blocks"]]
    return {
        "created_by_id": USER_ID,
        "last_updated_by_id": USER_ID,
        "created_at": agent["created_at"],
        "updated_at": agent["updated_at"],
        "id": agent["id"],
        "name": agent["name"],
        "tool_rules": [],
        "message_ids": agent["message_ids"],
        "system": agent["system"],
        "agent_type": agent["agent_type"],
        "llm_config": _model_configuration(agent),
        "embedding_config": None,
        "model": agent["model"],
        "embedding": None,
        "model_settings": {
            "max_output_tokens": MAX_OUTPUT,
            "parallel_tool_calls": False,
            "provider_type": "openai",
            "temperature": 1.0,
            "reasoning": {"reasoning_effort": "minimal"},
            "response_format": None,
            "strict": False,
        },
        "compaction_settings": agent["compaction_settings"],
        "response_format": None,
        "description": agent["description"],
        "metadata": agent["metadata"],
        "memory": {
            "agent_type": agent["agent_type"],
            "git_enabled": False,
            "blocks": blocks,
            "file_blocks": [],
            "prompt_template": "",
        },
        "blocks": blocks,
        "tools": [],
        "sources": [],
        "tags": agent["tags"],
        "tool_exec_environment_variables": [],
        "secrets": [],
        "project_id": None,
        "template_id": None,
        "base_template_id": None,
        "deployment_id": None,
        "entity_id": None,
        "identity_ids": [],
        "identities": [],
        "pending_approval": None,
        "message_buffer_autoclear": False,
        "enable_sleeptime": None,
        "multi_agent_group": None,
        "managed_group": None,
        "last_run_completion": None,
        "last_run_duration_ms": None,
        "last_stop_reason": agent["last_stop_reason"],
        "timezone": agent["timezone"],
        "max_files_open": 5,
        "per_file_view_window_char_limit": 15_000,
        "hidden": None,
    }


def _model_configuration(agent: Agent) -> dict[str, Any]:
    provider, _, model = agent["model"].rpartition("/")
    return {
        "model": model,
        "display_name": None,
        "model_endpoint_type": "openai",
        "model_endpoint": None,
        "provider_name": provider or "openai",
        "provider_category": "base",
        "model_wrapper": None,
        "context_window": agent["window"],
        "put_inner_thoughts_in_kwargs": False,
        "handle": agent["model"],
        "temperature": 1.0,
        "max_tokens": MAX_OUTPUT,
        "enable_reasoner": True,
        "reasoning_effort": None,
        "max_reasoning_tokens": 0,
        "effort": None,
        "frequency_penalty": None,
        "compatibility_type": None,
        "verbosity": None,
        "tier": None,
        "parallel_tool_calls": False,
        "response_format": None,
        "strict": False,
        "return_logprobs": False,
        "top_logprobs": None,
        "return_token_ids": False,
        "tool_call_parser": None,
    }


def _block(block: dict[str, Any]) -> dict[str, Any]:
    return {
        "created_by_id": None,
        "last_updated_by_id": None,
        "project_id": None,
        "template_name": None,
        "is_template": False,
        "template_id": None,
        "base_template_id": None,
        "deployment_id": None,
        "entity_id": None,
        "preserve_on_migration": False,
        "value": block["value"],
        "limit": block["limit"],
        "label": block["label"],
        "read_only": False,
        "description": block["description"],
        "metadata": {},
        "hidden": None,
        "id": block["id"],
        "tags": [],
    }
