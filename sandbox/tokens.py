"""Token counting as the server does it for models whose tokenizer it does not know: bytes of JSON, four to a token.

Source: seen on letta 0.16.8; the figures are the ones of its context overview.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sandbox.messages import Stored, for_model, text_of

BYTES_PER_TOKEN = 4

SAFETY_MARGIN = 1.3
"""What the server multiplies its estimate by when it checks a compaction's goal (and nowhere else)."""

_SECTIONS = ("memory_blocks", "memory_filesystem", "tool_usage_rules", "directories", "memory_metadata")


def of_text(text: str) -> int:
    """Estimate the tokens of a text."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def of_messages(messages: list[Stored]) -> int:
    """Estimate the tokens of messages as they are sent to a model; non-ASCII text counts as its JSON escapes."""
    converted = for_model(messages)
    return of_text(json.dumps(converted)) if converted else 0


def against_goal(messages: list[Stored]) -> int:
    """Estimate the tokens of messages with the margin that the server's compaction adds."""
    return int(of_messages(messages) * SAFETY_MARGIN)


def overview(system: Stored, others: list[Stored], window: int, recall: int) -> dict[str, Any]:
    """Build the context overview: every field of Letta's `ContextWindowOverview`.

    `system` is the freshly compiled system message, `others` the rest of the context in order, `recall` the number of
    all messages of the agent.
    """
    compiled = text_of(system)
    prompt = _preamble(compiled)
    core = _section(compiled, "memory_blocks") or ""
    metadata = _section(compiled, "memory_metadata") or ""
    counts = {
        "num_tokens_system": of_text(prompt),
        "num_tokens_core_memory": of_text(core),
        "num_tokens_external_memory_summary": of_text(metadata),
        "num_tokens_messages": of_messages(others),
    }
    return {
        "context_window_size_max": window,
        "context_window_size_current": sum(counts.values()),
        "num_messages": 1 + len(others),
        "num_archival_memory": 0,
        "num_recall_memory": recall,
        "num_tokens_external_memory_summary": counts["num_tokens_external_memory_summary"],
        "external_memory_summary": metadata,
        "num_tokens_system": counts["num_tokens_system"],
        "system_prompt": prompt,
        "num_tokens_core_memory": counts["num_tokens_core_memory"],
        "core_memory": core,
        "num_tokens_memory_filesystem": 0,
        "memory_filesystem": None,
        "num_tokens_tool_usage_rules": 0,
        "tool_usage_rules": None,
        "num_tokens_directories": 0,
        "directories": None,
        # A summary that the compact endpoint wrote has a role of its own, and the server counts it among the messages.
        "num_tokens_summary_memory": 0,
        "summary_memory": None,
        "num_tokens_functions_definitions": 0,
        "functions_definitions": [],
        "num_tokens_messages": counts["num_tokens_messages"],
        "messages": [system, *others],
    }


def _section(text: str, tag: str) -> str | None:
    found = re.search(f"<{tag}>.*?</{tag}>", text, re.DOTALL)
    return found.group(0) if found else None


def _preamble(text: str) -> str:
    tagged = _section(text, "base_instructions")
    if tagged is not None:
        return tagged
    starts = [at for at in (text.find(f"<{tag}>") for tag in _SECTIONS) if at >= 0]
    return text[: min(starts, default=len(text))].strip()
