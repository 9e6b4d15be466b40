"""Reading a request's body: so much and no more, in so much time and no more, and as JSON that means one thing."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

LIMIT = 64 * 1024
"""Bytes that a body may have. What comes by this door is a few hundred."""

BODY_SECONDS = 10.0
"""How long a body may take to arrive."""

# What is left of such a request is not worth reading: the connection ends with the answer.
CLOSE = {"Connection": "close"}


def require_json(request: Request) -> None:
    """Refuse (415) what does not call itself JSON in UTF-8, or comes packed."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    packed = request.headers.get("content-encoding", "identity").lower() != "identity"
    if kind.strip().lower() != "application/json" or charset not in {"", "charset=utf-8", "charset=utf8"} or packed:
        raise HTTPException(415, "send application/json in UTF-8, not compressed", headers=CLOSE)


async def read_body(request: Request) -> bytes:
    """Read a body, no further than its limit: 413 for a longer one, 408 for one that does not arrive."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:12]) > LIMIT:
        _too_long()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LIMIT:
                    _too_long()
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive in time", headers=CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early", headers=CLOSE) from None
    return bytes(body)


def parse(body: bytes) -> Any:
    """Read JSON strictly: 400 for what is none, and for what two readers could take for two things."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON, or names something twice") from None


def _too_long() -> NoReturn:
    raise HTTPException(413, f"the body is longer than {LIMIT} bytes", headers=CLOSE)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name twice")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
