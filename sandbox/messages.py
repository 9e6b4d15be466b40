"""Messages in their three shapes: as stored, as the message list shows them, and as they are sent to a model.

A stored message is a JSON object with the fields of Letta's `Message`. It is what the context overview returns.
"""

from __future__ import annotations

import json
from typing import Any

from sandbox.ids import now, offline_id, spoken

Stored = dict[str, Any]
"""One message with every field of Letta's `Message`."""

_FIELDS: tuple[str, ...] = (
    "created_by_id",
    "last_updated_by_id",
    "created_at",
    "updated_at",
    "id",
    "agent_id",
    "model",
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "step_id",
    "run_id",
    "otid",
    "tool_returns",
    "group_id",
    "sender_id",
    "batch_item_id",
    "conversation_id",
    "is_err",
    "approval_request_id",
    "approve",
    "denial_reason",
    "approvals",
)


_EMPTY: dict[str, Any] = {"tool_returns": [], "approvals": []}


def packed(body: dict[str, Any]) -> str:
    """Write the JSON that the server puts into messages of its own; indented, which the counting of tokens sees."""
    return json.dumps(body, indent=2, ensure_ascii=False)


def text_part(text: str) -> dict[str, Any]:
    """Make one text part of a message's content."""
    return {"type": "text", "text": text, "signature": None}


def message(message_id: str, role: str, content: str | list[dict[str, Any]], **fields: Any) -> Stored:
    """Make a stored message; `fields` may name any other field of Letta's `Message`."""
    parts = [text_part(content)] if isinstance(content, str) else content
    given = {"id": message_id, "role": role, "content": parts, "created_at": now(), **fields}
    unknown = given.keys() - set(_FIELDS)
    if unknown:
        raise ValueError(f"A message has no such fields: {sorted(unknown)}")
    return {field: given.get(field, _EMPTY.get(field)) for field in _FIELDS}


def tool_call(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make one tool call in OpenAI's shape."""
    return {"id": call_id, "function": {"arguments": json.dumps(arguments), "name": name}, "type": "function"}


def tool_result(message_id: str, call_id: str, name: str, result: str, when: str, **fields: Any) -> Stored:
    """Make the message with which a tool answers a call."""
    response = packed({"status": "OK", "message": result, "time": spoken(when)})
    returned = {
        "tool_call_id": call_id,
        "status": "success",
        "stdout": None,
        "stderr": None,
        "func_response": response,
    }
    return message(
        message_id,
        "tool",
        response,
        name=name,
        tool_call_id=call_id,
        tool_returns=[returned],
        created_at=when,
        **fields,
    )


def text_of(stored: Stored) -> str:
    """Return the text of a message: its text parts joined, images left out."""
    parts = stored["content"] or []
    return "\n\n".join(part["text"] for part in parts if part.get("type") == "text")


def for_model(messages: list[Stored]) -> list[dict[str, Any]]:
    """Convert messages as the server does before it counts or sends them: OpenAI's chat format."""
    converted: list[dict[str, Any]] = []
    for stored in messages:
        if stored["role"] == "tool":
            converted.extend(
                {"content": returned["func_response"], "role": "tool", "tool_call_id": returned["tool_call_id"]}
                for returned in stored["tool_returns"]
            )
            continue
        role = "user" if stored["role"] == "summary" else stored["role"]
        shape: dict[str, Any] = {"content": text_of(stored) if stored["content"] else None, "role": role}
        if stored["tool_calls"]:
            shape["tool_calls"] = stored["tool_calls"]
        converted.append(shape)
    return converted


def for_list(messages: list[Stored]) -> list[dict[str, Any]]:
    """Convert messages to the items of the message list; one message may become several items with one id."""
    return [item for stored in messages for item in _items(stored)]


def _items(stored: Stored) -> list[dict[str, Any]]:
    role = stored["role"]
    if role == "assistant":
        return _assistant_items(stored)
    if role == "tool":
        return [_tool_item(stored)]
    if role == "system":
        return [{**_head(stored, "system_message", stored["otid"]), "content": text_of(stored)}]
    # A summary is listed as a user's message: its content stays the packed JSON of the alert.
    return [{**_head(stored, "user_message", stored["otid"]), "content": _user_content(stored)}]


def _head(stored: Stored, message_type: str, otid: str | None) -> dict[str, Any]:
    return {
        "id": stored["id"],
        "date": stored["created_at"][:19] + "+00:00",
        "name": stored["name"],
        "message_type": message_type,
        "otid": otid,
        "sender_id": stored["sender_id"],
        "step_id": stored["step_id"],
        "is_err": None,
        "seq_id": None,
        "run_id": stored["run_id"],
    }


def _user_content(stored: Stored) -> str | list[dict[str, Any]]:
    parts: list[dict[str, Any]] = stored["content"] or []
    if len(parts) == 1 and parts[0].get("type") == "text":
        return text_of(stored)
    return parts


def _assistant_items(stored: Stored) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    text = "".join(part["text"] for part in stored["content"] or [] if part.get("type") == "text")
    if text:
        items.append({**_head(stored, "assistant_message", offline_id(stored["id"], 0)), "content": text})
    if stored["tool_calls"]:
        calls = [
            {
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
                "tool_call_id": call["id"],
            }
            for call in stored["tool_calls"]
        ]
        head = _head(stored, "tool_call_message", offline_id(stored["id"], len(items)))
        items.append({**head, "tool_call": calls[0], "tool_calls": calls})
    return items


def _tool_item(stored: Stored) -> dict[str, Any]:
    returned = stored["tool_returns"][0]
    shown = {
        "tool_return": json.loads(returned["func_response"])["message"],
        "status": returned["status"],
        "tool_call_id": returned["tool_call_id"],
        "stdout": returned["stdout"],
        "stderr": returned["stderr"],
    }
    head = _head(stored, "tool_return_message", offline_id(stored["id"], 0))
    return {**head, **shown, "tool_returns": [{"type": "tool", **shown}]}
