"""Recognising the summary that a compaction leaves in the context, in both forms in which servers list it."""

from __future__ import annotations

import json

from worker.letta.messages import Message

_LEAD = "The following is a summary of the previous messages:"
"""What a server puts before the summarizer's own words (0.16.8)."""


def summary_text(message: Message) -> str | None:
    """Give the summarizer's own words, None for a message that is no summary.

    A summary is listed as `summary_message`; or, seen on 0.16.8, as a `user_message` whose content is a JSON object of
    type `system_alert`.
    """
    if message.message_type == "summary_message":
        return _unpacked(message.text()) or _after_lead(message.text()) or message.text()
    if message.message_type in {"user_message", "system_message"}:
        return _unpacked(message.text())
    return None


def _unpacked(text: str) -> str | None:
    if "system_alert" not in text:
        return None
    try:
        packed = json.loads(text)
    except ValueError:
        return None
    if not isinstance(packed, dict) or packed.get("type") != "system_alert":
        return None
    alert = packed.get("message")
    return _after_lead(alert) if isinstance(alert, str) else None


def _after_lead(text: str) -> str | None:
    _, found, summary = text.partition(_LEAD)
    return summary.removeprefix("\n").removeprefix(" ") if found else None
