"""Server-sent events: pings skipped, `[DONE]` honoured, every other end a typed error."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from worker.letta.detail import clip, read_detail
from worker.letta.errors import Call, LettaError, LettaProtocolError, StreamBroken, StreamFailed
from worker.letta.faults import from_response
from worker.letta.messages import Message
from worker.letta.wire import Body, Wire, decode, protocol_error


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: a message, the stop reason, or the usage, told apart by `message_type`; `data` is as it came."""

    message_type: str
    data: dict[str, Any] = field(repr=False)

    def message(self) -> Message:
        """Return the event as a message; pydantic's ValidationError for one that has no id, such as a stop reason."""
        return Message.model_validate(self.data)


async def stream_events(wire: Wire, call: Call, body: Body) -> AsyncGenerator[StreamEvent, None]:
    """Yield the events of one stream, to its `[DONE]`.

    Raises StreamFailed for an error that the server sends as an event, StreamBroken for an end without `[DONE]`, and
    LettaTimeout when no event, not even a ping, comes within the time-out `stream_gap`.
    """
    opened = ended = False
    fault: LettaError | None = None
    try:
        async with wire.open_stream(call, body) as response:
            await _require_events(wire, response, call)
            opened = True
            async for event in EventSource(response).aiter_sse():
                if event.data == "[DONE]":
                    ended = True
                    break
                read = _read(wire, event, call)
                if read is not None and read.message_type != "ping":
                    yield read
                if event.event == "cancelled":
                    ended = True
                    break
    except httpx.RequestError as error:
        fault = wire.stream_fault(error, call, opened=opened)
    # Outside the except clause, so that no exception that holds the request's headers is its context.
    if fault is not None:
        raise fault
    if not ended:
        raise StreamBroken("the stream ended before its [DONE]", call=call, outcome_known=not call.changes)


async def _require_events(wire: Wire, response: httpx.Response, call: Call) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.is_success and kind == "text/event-stream":
        return
    await response.aread()
    if not response.is_success:
        raise from_response(response, call, wire.redact)
    decode(response, call)
    raise protocol_error("answered with one JSON document instead of a stream of events", call, response)


def _read(wire: Wire, event: ServerSentEvent, call: Call) -> StreamEvent | None:
    """Return what an event says, None where it has no data; an error that it reports is raised."""
    if not event.data:
        return None
    try:
        data = json.loads(event.data)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise LettaProtocolError("the stream sent an event that is not a JSON object", call=call, body=event.data)
    name = "cancelled" if event.event == "cancelled" else str(data.get("message_type", "unknown"))
    if event.event == "error" or name == "error_message" or ("error" in data and name == "unknown"):
        raise _failure(wire, data, call)
    return StreamEvent(name, data)


def _failure(wire: Wire, data: dict[str, Any], call: Call) -> StreamFailed:
    words = dict.fromkeys(str(data[key]) for key in ("error_type", "message", "detail") if data.get(key))
    text = clip(wire.redact(": ".join(words))) or read_detail(json.dumps(data).encode(), wire.redact).text
    sentence = f"the server reported an error: {text or 'it gave no reason'}"
    return StreamFailed(sentence, call=call, outcome_known=not call.changes)
