"""One exchange at a time: send a call, bound its time, and turn every failure into an error of our tree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from worker.contract.problems import sentences
from worker.letta.detail import clip
from worker.letta.errors import Call, LettaError, LettaProtocolError, StreamBroken
from worker.letta.faults import from_exception, from_response, timed_out
from worker.letta.meter import count_request
from worker.letta.timeouts import Timeouts

Params = Mapping[str, str | int | bool | None]
Body = Mapping[str, Any]

_Model = TypeVar("_Model", bound=BaseModel)


class Wire:
    """The client's lower half: exchanges, without knowing any endpoint. It never sends anything twice."""

    def __init__(self, http: httpx.AsyncClient, timeouts: Timeouts) -> None:
        self.http = http
        self.timeouts = timeouts
        self._secret = http.headers.get("authorization", "").removeprefix("Bearer ")

    def redact(self, text: str) -> str:
        """Blot the key out of a text that a server may have echoed it in."""
        return text.replace(self._secret, "[key]") if self._secret else text

    async def fetch(
        self, call: Call, seconds: float, *, params: Params | None = None, body: Body | None = None
    ) -> httpx.Response:
        """Return the answer, read whole, if it is a success; raise a LettaError within `seconds` otherwise."""
        fault: LettaError
        count_request()
        try:
            async with asyncio.timeout(seconds):
                response = await self.http.request(
                    call.method, call.path, params=_set(params), json=body, timeout=self._limits(seconds)
                )
        except TimeoutError:
            fault = timed_out(call, seconds)
        except httpx.RequestError as error:
            fault = from_exception(error, call, seconds, self.redact)
        else:
            if response.is_success:
                return response
            fault = from_response(response, call, self.redact)
        # Outside the except clauses, so that no exception that holds the request's headers is its context.
        raise fault

    async def fetch_json(
        self, call: Call, seconds: float, *, params: Params | None = None, body: Body | None = None
    ) -> Any:
        """Return the answer's JSON document."""
        return decode(await self.fetch(call, seconds, params=params, body=body), call)

    async def fetch_model(
        self, kind: type[_Model], call: Call, seconds: float, *, params: Params | None = None, body: Body | None = None
    ) -> _Model:
        """Return the answer as a `kind`."""
        response = await self.fetch(call, seconds, params=params, body=body)
        return shape(kind, decode(response, call), call, response)

    def open_stream(self, call: Call, body: Body) -> AbstractAsyncContextManager[httpx.Response]:
        """Open a stream of events, whatever its status; what it raises goes to `stream_fault`."""
        count_request()
        return self.http.stream(
            call.method,
            call.path,
            json=body,
            headers={"Accept": "text/event-stream", "Cache-Control": "no-store"},
            timeout=self._limits(self.timeouts.stream_gap),
        )

    def stream_fault(self, error: httpx.RequestError, call: Call, *, opened: bool) -> LettaError:
        """Return the error for a stream that broke, after (`opened`) or before its answer began."""
        if not opened or isinstance(error, httpx.TimeoutException | httpx.DecodingError):
            return from_exception(error, call, self.timeouts.stream_gap, self.redact)
        words = clip(self.redact(str(error))) or type(error).__name__
        return StreamBroken(f"the stream broke: {words}", call=call, outcome_known=not call.changes)

    def _limits(self, seconds: float) -> httpx.Timeout:
        return httpx.Timeout(seconds, connect=self.timeouts.connect, pool=self.timeouts.connect)


def _set(params: Params | None) -> dict[str, str | int | bool] | None:
    """Leave out what was not asked for, and send none rather than an empty query."""
    return {name: value for name, value in (params or {}).items() if value is not None} or None


def decode(response: httpx.Response, call: Call) -> Any:
    """Return the JSON of a success; LettaProtocolError says what came instead."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        start = response.content.lstrip()[:1]
    what = {
        b"": "nothing instead of JSON",
        b"<": "an HTML page instead of JSON; is LETTA_BASE_URL the address of a Letta server?",
    }.get(start, "something that is not JSON, or JSON that is cut off")
    raise protocol_error(f"answered {response.status_code} with {what}", call, response)


def shape(kind: type[_Model], document: Any, call: Call, response: httpx.Response) -> _Model:
    """Return `document` as a `kind`; LettaProtocolError names the fields that do not fit."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problems = clip("; ".join(sentences(error, kind)))
    raise protocol_error(f"the answer is not a {kind.__name__}: {problems}", call, response)


def protocol_error(sentence: str, call: Call, response: httpx.Response) -> LettaProtocolError:
    """Return the error for a success whose body is of no use; it keeps the body for the audit."""
    body = response.content.decode("utf-8", "replace")
    return LettaProtocolError(sentence, call=call, status=response.status_code, body=body)
