"""The summary, made offline: it quotes the beginnings of the messages that leave the context, oldest first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sandbox.ids import spoken
from sandbox.messages import Stored, packed, text_of

TRUNCATION_SUFFIX = "... [summary truncated to fit]"
"""What the server appends to a summary that it cut to `clip_chars`."""

QUOTE_CHARS = 110
"""How much of one message is quoted at most."""

MAX_QUOTES = 20
"""How many messages are quoted at most: the longest summary has 2,500 characters, about what a model makes of the
server's instructions, which ask it for 300 to 500 words."""

LEAST_CHARS = 40
"""How much of one message is quoted at least, so that "Done." does not stand alone."""

_BEGINNING = re.compile(rf".{{{LEAST_CHARS}}}.*?[.!?](?=\s|$)", re.DOTALL)
_PREVIOUS = re.compile(r"summary of the previous messages:\n (.*)", re.DOTALL)


def summarize(evicted: Sequence[Stored], clip_chars: int | None) -> str:
    """Summarize by quoting; longer than `clip_chars` characters it is cut and marked (None: never cut)."""
    chosen = _spread(evicted)
    lines = [f"{len(evicted)} messages are summarized; {len(chosen)} of them are quoted."]
    lines += [f"{stored['role']}: {_quote(stored)}" for stored in chosen]
    text = "\n".join(lines)
    if clip_chars is not None and len(text) > clip_chars:
        return text[:clip_chars] + TRUNCATION_SUFFIX
    return text


def pack(summary: str, mode_used: str, when: str) -> str:
    """Wrap a summary in the alert that the server stores as the summary message's text (JSON)."""
    which = (
        "prior messages from the beginning of the conversation" if "sliding_window" in mode_used else "prior messages"
    )
    note = (
        f"Note: {which} have been hidden from view due to conversation memory constraints.\n"
        f"The following is a summary of the previous messages:\n {summary}"
    )
    return packed({"type": "system_alert", "message": note, "time": spoken(when)})


def _spread(evicted: Sequence[Stored]) -> list[Stored]:
    if len(evicted) <= MAX_QUOTES:
        return list(evicted)
    step = (len(evicted) - 1) / (MAX_QUOTES - 1)
    return [evicted[round(place * step)] for place in range(MAX_QUOTES)]


def _quote(stored: Stored) -> str:
    text = _readable(stored)
    beginning = _BEGINNING.match(text)
    return (beginning.group(0) if beginning else text)[:QUOTE_CHARS]


def _readable(stored: Stored) -> str:
    text = text_of(stored)
    if stored["role"] == "tool":
        text = str(json.loads(text)["message"])
    elif stored["role"] == "summary":
        # A summary of a summary quotes what the older one said, not its wrapping.
        previous = _PREVIOUS.search(str(json.loads(text)["message"]))
        text = previous.group(1) if previous else text
    elif stored["tool_calls"]:
        call = stored["tool_calls"][0]["function"]
        text = text or f"called {call['name']}({call['arguments']})"
    return text.strip()
