"""The system message: an agent's instructions, its memory blocks and a few lines about its memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandbox.ids import spoken

DEFAULT_INSTRUCTIONS = """<base_instructions>
You are an assistant with a memory that lasts. What you know about the people you talk to, and about yourself, is kept
in memory blocks that you always see below. Older parts of the conversation may leave your view; a summary then takes
their place, and the messages themselves stay in recall memory.

Answer in plain words, briefly. Say what you do not know. When a tool can find out what you are asked, call the tool
first and answer from what it returned. When the user changes a decision, the newest decision counts.

Never promise what you cannot do. When something went wrong, say what went wrong and what happens next.
</base_instructions>"""
"""What an agent is told that was made without a system prompt of its own."""

DEFAULT_BLOCK_LIMIT = 100_000
"""Characters that a memory block may hold."""


def compile_system_message(agent: dict[str, Any], conversation_id: str, recall: int, when: str) -> str:
    """Write the text of a system message; `recall` is the number of the agent's messages, `when` the moment of it."""
    metadata = [
        "<memory_metadata>",
        f"- AGENT_ID: {agent['id']}",
        f"- CONVERSATION_ID: {conversation_id}",
        f"- System prompt last recompiled: {spoken(when)}",
        f"- {recall} previous messages between you and the user are stored in recall memory",
        "</memory_metadata>",
    ]
    return "\n\n".join([agent["system"], _blocks(agent["blocks"]), "\n".join(metadata)]).replace("\n\n\n", "\n\n")


def _blocks(blocks: Sequence[dict[str, Any]]) -> str:
    if not blocks:
        return ""
    rendered = "\n".join(_block(block) for block in blocks)
    return f"<memory_blocks>\nThese memory blocks are in your core memory:\n\n{rendered}\n</memory_blocks>"


def _block(block: dict[str, Any]) -> str:
    value = block["value"]
    return (
        f"<{block['label']}>\n<description>\n{block['description'] or ''}\n</description>\n"
        f"<metadata>\n- chars_current={len(value)}\n- chars_limit={block['limit']}\n</metadata>\n"
        f"<value>\n{value}\n</value>\n</{block['label']}>\n"
    )
