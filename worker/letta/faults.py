"""Tell what a failed exchange means: from an answer's status, or from an exception of httpx, to one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from worker.letta.detail import Detail, clip, read_detail, read_retry_after
from worker.letta.errors import (
    BadRequest,
    Call,
    Conflict,
    Forbidden,
    LettaConnectionLost,
    LettaError,
    LettaProtocolError,
    LettaStatusError,
    LettaTimeout,
    LettaUnreachable,
    NotFound,
    RateLimited,
    RedirectRefused,
    ServerError,
    Unauthorized,
    Unprocessable,
)

_KINDS: dict[int, type[LettaStatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    429: RateLimited,
}

_MEANINGS = {
    400: "the request was declined",
    401: "the key was not accepted; check LETTA_API_KEY",
    402: "no credits left",
    403: "the key is not allowed to do this",
    404: "not found",
    409: "busy, or in conflict with another request",
    410: "no longer available",
    422: "the request is not of the form that this server takes",
    429: "too many requests",
}

_PROVIDERS_KEY = "the Letta server's own key at its model provider was not accepted"

_UNCERTAIN = frozenset({408, 499})
"""Statuses under 500 that end the wait, not the work."""


def from_response(response: httpx.Response, call: Call, redact: Callable[[str], str]) -> LettaStatusError:
    """Return the error for an answer that is not a success; its body must have been read."""
    status = response.status_code
    headers = response.headers
    retry_after = read_retry_after(headers.get("retry-after"), headers.get("date"), datetime.now(UTC))
    if response.is_redirect or 300 <= status < 400:  # noqa: PLR2004
        target = clip(redact(headers.get("location", "an unnamed place").partition("?")[0]))
        sentence = f"answered {status}: redirects to {target}, which is not followed; check LETTA_BASE_URL"
        return RedirectRefused(sentence, call=call, status=status)
    detail = read_detail(response.content, redact)
    kind = _KINDS.get(status, ServerError if status >= 500 else LettaStatusError)  # noqa: PLR2004
    return kind(
        _sentence(status, detail),
        call=call,
        status=status,
        detail=detail.text,
        kind=detail.kind,
        outcome_known=not call.changes or _declined(status, retry_after),
        retry_after=retry_after,
    )


def _sentence(status: int, detail: Detail) -> str:
    meaning = _MEANINGS.get(status, "the server failed" if status >= 500 else "not expected")  # noqa: PLR2004
    if status == 401 and detail.kind == "llm_authentication":  # noqa: PLR2004
        meaning = _PROVIDERS_KEY
    return f"answered {status} ({meaning}){': ' + detail.text if detail.text else ''}"


def _declined(status: int, retry_after: float | None) -> bool:
    """Tell whether a status proves that nothing was done; ServerError's docstring says why."""
    if status >= 500:  # noqa: PLR2004
        return status == 503 and retry_after is not None  # noqa: PLR2004
    return status not in _UNCERTAIN


def from_exception(error: httpx.RequestError, call: Call, seconds: float, redact: Callable[[str], str]) -> LettaError:
    """Return the error for an exchange that httpx gave up."""
    words = clip(redact(str(error))) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return LettaUnreachable("the server could not be reached: no connection in time", call=call)
        case httpx.ConnectError() | httpx.ProxyError() | httpx.UnsupportedProtocol():
            return LettaUnreachable(f"the server could not be reached: {words}", call=call)
        case httpx.PoolTimeout():
            return LettaTimeout("no connection was free in time; nothing was sent", call=call)
        case httpx.TimeoutException():
            return timed_out(call, seconds)
        case httpx.DecodingError():
            return LettaProtocolError("the answer could not be decompressed", call=call)
        case _:
            sentence = f"the connection was lost before the answer: {words}"
            return LettaConnectionLost(sentence, call=call, outcome_known=not call.changes)


def timed_out(call: Call, seconds: float) -> LettaTimeout:
    """Return the error for a call that got no answer within `seconds`."""
    return LettaTimeout(f"no answer within {seconds:g} s", call=call, outcome_known=not call.changes)
