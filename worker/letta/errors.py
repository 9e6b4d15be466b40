"""Everything that can go wrong between us and a Letta server, as one tree.

    LettaError
    ├── UnusableArgument     an id or a cursor that must not go into a URL; nothing was sent
    ├── LettaUnreachable     no connection; nothing was sent
    ├── LettaTimeout         no answer in time
    ├── LettaConnectionLost  the connection broke after the request may have left
    ├── LettaProtocolError   2xx, but not what the API answers: HTML, cut JSON, another shape
    ├── StreamBroken         a stream that stopped before its end
    ├── StreamFailed         the server reported an error inside a stream
    └── LettaStatusError     any other status
        ├── RedirectRefused  3xx
        ├── BadRequest       400
        ├── Unauthorized     401
        ├── Forbidden        403
        ├── NotFound         404
        ├── Conflict         409
        ├── Unprocessable    422
        ├── RateLimited      429
        └── ServerError      5xx

Three questions are answered on the base, so that callers need not know the tree:

`retryable`      may the same call succeed later, with nothing else changed?
`outcome_known`  False when a call that changes something may have taken effect all the same. Such a call must not be
                 repeated before a look has shown that it had no effect.
`retry_after`    seconds that the server asks to wait, or None.

No error carries a key, a header or a message's text, and none has a cause: exceptions of HTTP libraries hold requests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its method and path (never its query or body), and whether it changes anything on the server."""

    method: str
    path: str
    changes: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class LettaError(Exception):
    """Base of the tree; `str()` is one sentence for an operator."""

    retryable: bool = False

    def __init__(
        self,
        sentence: str,
        *,
        call: Call | None = None,
        outcome_known: bool = True,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{call}: {sentence}" if call else sentence)
        self.sentence = sentence
        self.method = call.method if call else None
        self.path = call.path if call else None
        self.outcome_known = outcome_known
        self.retry_after = retry_after
        self.status = status


class UnusableArgument(LettaError, ValueError):
    """An argument that cannot be sent as it is; nothing was sent."""


class LettaUnreachable(LettaError):
    """No connection came about, so nothing was sent: the outcome is known even of a POST."""

    retryable = True


class LettaTimeout(LettaError):
    """No answer within the call's time-out; the server carries on after its client has left."""

    retryable = True


class LettaConnectionLost(LettaError):
    """The connection broke after the request may have been sent."""

    retryable = True


class LettaProtocolError(LettaError):
    """A success status, with a body that is not the API's.

    `body` is that body as text, for the audit; it is not part of the message.
    """

    def __init__(self, sentence: str, *, call: Call, status: int | None = None, body: str = "") -> None:
        super().__init__(sentence, call=call, outcome_known=not call.changes, status=status)
        self.body = body


class StreamBroken(LettaError):
    """A stream ended without `[DONE]`, or its connection broke between two events."""

    retryable = True


class StreamFailed(LettaError):
    """The server sent an error as an event of a stream; what was done until then stays done."""


class LettaStatusError(LettaError):
    """An answer with a status that is not a success.

    `detail` is the server's own words, at most 300 characters; `kind` its name for the error, such as
    `llm_rate_limit`, which tells trouble with the model's provider from trouble with the Letta server.
    """

    def __init__(
        self,
        sentence: str,
        *,
        call: Call,
        status: int,
        detail: str = "",
        kind: str | None = None,
        outcome_known: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(sentence, call=call, outcome_known=outcome_known, retry_after=retry_after, status=status)
        self.detail = detail
        self.kind = kind
        # 408 and 425 say themselves that the request may come again.
        self.retryable = type(self).retryable or status in {408, 425}

    @property
    def nothing_to_compact(self) -> bool:
        """True for the refusal of a compaction that could not make the conversation shorter, or found it empty.

        The summarizer was called and paid for all the same when it could not be made shorter.
        """
        return False


class RedirectRefused(LettaStatusError):
    """The server points elsewhere; we follow nowhere, so that the key goes to the configured server alone."""


_NOTHING_TO_COMPACT = ("summarization failed to reduce the number of messages", "no in-context messages found")


class BadRequest(LettaStatusError):
    """400: the server understood and declined."""

    @property
    def nothing_to_compact(self) -> bool:
        """True when the server's words say so (as 0.16.8 words it)."""
        return self.detail.lower().startswith(_NOTHING_TO_COMPACT)


class Unauthorized(LettaStatusError):
    """401: the key is missing or wrong; or, with `kind` `llm_authentication`, the server's key at its provider is."""


class Forbidden(LettaStatusError):
    """403: the key may not do this."""


class NotFound(LettaStatusError):
    """404: no such thing, or not any more."""


class Conflict(LettaStatusError):
    """409: the conversation is busy, or a lock was held; nothing was done."""

    retryable = True


class Unprocessable(LettaStatusError):
    """422: the request is not of the form that this server takes; the message names the fields."""


class RateLimited(LettaStatusError):
    """429: too many requests to this server, or (`kind` `llm_rate_limit`) of this server to its provider."""

    retryable = True


class ServerError(LettaStatusError):
    """5xx: the server or a proxy before it failed.

    On a call that changes something the outcome is unknown: a proxy's 502 or 504 says nothing of the server behind
    it, and a server's own 500 may come from the moment after its commit. The one exception is a 503 with
    `Retry-After`, by which a server or a proxy says that it has not taken the request.
    """

    retryable = True
