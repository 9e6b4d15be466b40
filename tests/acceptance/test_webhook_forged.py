"""Ten thousand requests that must not get through: forged, broken, too long, and no requests at all."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import string
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from tests.support.door import RunningDoor, running_door
from tests.support.signing import (
    BEARER,
    COMPACTION,
    JSON,
    KEY,
    OLD_SECRET,
    SECRET,
    STEP_COMPLETE,
    STRANGERS_SECRET,
    new_id,
    signed,
)

REQUESTS, LINES, AT_ONCE, SEED = 9_800, 200, 32, 4

REFUSALS = {400, 401, 404, 405, 408, 413, 415, 422}

Forgery = tuple[str, str, bytes, dict[str, str]]
"""Method, path, body, headers."""


def step() -> bytes:
    return json.dumps({"step_id": new_id("step")}).encode()


def asked() -> bytes:
    return json.dumps({"conversation_id": new_id("conv"), "reason": "because"}).encode()


def without_the_key(chance: random.Random) -> Forgery:
    wrong = ["", "x", KEY[:-1], KEY + "x", KEY.upper(), SECRET, "ké", "null", "Bearer", "=" * 500, _text(chance)]
    scheme = chance.choice(["Bearer ", "bearer  x", "Basic ", "", "Token "])
    given = chance.choice(wrong)
    return "POST", STEP_COMPLETE, step(), JSON | {"Authorization": f"{scheme}{given}"}


def altered(chance: random.Random) -> Forgery:
    """A good one, of which one thing is another."""
    body = asked()
    headers = signed(body, secret=chance.choice([SECRET, OLD_SECRET]))
    what = chance.choice(["body", "webhook-id", "webhook-timestamp", "webhook-signature", "missing"])
    if what == "body":
        body = _with_another_byte(chance, body)
    elif what == "missing":
        del headers[chance.choice(["webhook-id", "webhook-timestamp", "webhook-signature"])]
    else:
        value = headers[what]
        at = chance.randrange(len(value))
        other = chance.choice([char for char in string.ascii_letters + string.digits + "+/=,." if char != value[at]])
        headers[what] = chance.choice(
            [value[:at] + other + value[at + 1 :], value[:at] + other + value[at:], value[:at]]
        )
    return "POST", COMPACTION, body, headers


def forged(chance: random.Random) -> Forgery:
    body = asked()
    # They are made before the first is sent: what is signed for soon would be right by then.
    age = timedelta(seconds=chance.choice([-3600, -900, 301, 10**8]))
    return chance.choice(
        [
            ("POST", COMPACTION, body, signed(body, secret=STRANGERS_SECRET)),
            ("POST", COMPACTION, body, signed(body, at=datetime.now(UTC) - age)),
            ("POST", COMPACTION, body, signed(body) | {"webhook-timestamp": chance.choice(["nan", "1e9", "-1"])}),
            ("POST", COMPACTION, body, JSON | BEARER),
            ("POST", COMPACTION, body, signed(asked())),
            ("POST", COMPACTION, body, signed(body) | {"webhook-signature": _text(chance)}),
        ]
    )  # fmt: skip


def broken(chance: random.Random) -> Forgery:
    """With the right key, or rightly signed, but not what the page takes."""
    pieces = [
        "{", "}", "[", "]", ",", ":", '"step_id"', '"conversation_id"', '"agent_id"', '"reason"', "NaN", "1e999", "-0",
        "null", "true", '"\\ud800"', '"\\u0000"', '"step-1"', f'"{new_id("conv")}"', " ", "\n", "\ufeff", "9" * 4400,
    ]  # fmt: skip
    text = chance.choice(
        [
            "".join(chance.choice(pieces) for _ in range(chance.randrange(40))),
            "[" * chance.randrange(1, 30_000),
            json.dumps({"step_id": _text(chance), "conversation_id": _text(chance), "policy": _text(chance)}),
            json.dumps({"conversation_id": new_id("conv"), "agent_id": new_id("agent")}),
            json.dumps({"agent_id": new_id("agent"), "reason": "x" * 501}),
            json.dumps({"agent_id": new_id("agent"), "reason": "a\x00b"}),
            json.dumps({"agent_id": new_id("agent"), "policy": "\x00"}),
        ]
    )
    body = text.encode()
    if chance.random() < 0.5:
        return "POST", COMPACTION, body, signed(body)
    return "POST", STEP_COMPLETE, body, BEARER | JSON


def bytes_(chance: random.Random) -> Forgery:
    body = chance.randbytes(chance.choice([0, 1, 10, 1000, 70_000]))
    kind = chance.choice([{}, JSON, {"Content-Type": "text/xml"}, JSON | {"Content-Encoding": "gzip"}])
    return "POST", chance.choice([STEP_COMPLETE, COMPACTION]), body, BEARER | kind


def elsewhere(chance: random.Random) -> Forgery:
    path = chance.choice([STEP_COMPLETE, COMPACTION, "/compactions/", "/", "/webhooks/", "/openapi.jso"])
    path += chance.choice(["", "/", "%00", "/..", "//", "?x=1", "%2e%2e", "/" + "a" * 3000])
    method = chance.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
    return method, path, b"", BEARER


KINDS: list[Callable[[random.Random], Forgery]] = [without_the_key, altered, forged, broken, bytes_, elsewhere]

NO_REQUESTS = [
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /healthz\r\n\r\n",
    b"POST /webhooks/compaction HTTP/1.1\r\n\r\n",
    b"POST /webhooks/compaction HTTP/9.9\r\nHost: x\r\n\r\n",
    b"POST /webhooks/compaction HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /webhooks/compaction HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /webhooks/letta/step-complete HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer step-key\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /webhooks/letta/step-complete HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /readyz HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def lines(chance: random.Random) -> list[bytes]:
    """What is no request, or hardly one, and pieces of it."""
    made = list(NO_REQUESTS)
    while len(made) < LINES:
        one = bytearray(chance.choice(NO_REQUESTS))
        for _ in range(chance.randrange(1, 6)):
            one[chance.randrange(len(one))] = chance.randrange(256)
        made.append(bytes(one[: chance.randrange(1, len(one) + 1)]))
    return made


def _text(chance: random.Random) -> str:
    alphabet = string.printable[:95] + "äß漢\u202e"
    return "".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 60))).strip() or "x"


def _with_another_byte(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


async def send_all(base_url: str, forgeries: list[Forgery]) -> Counter[tuple[str, int]]:
    """Send them, many at once; how often each page answered what. A connection that is cut counts as status 0."""
    gate = asyncio.Semaphore(AT_ONCE)
    answers: Counter[tuple[str, int]] = Counter()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def one(method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
            async with gate:
                status = 0
                with suppress(aiohttp.ClientConnectionError):
                    async with session.request(
                        method, base_url + path, data=body, headers=headers, allow_redirects=False
                    ) as answer:
                        status = answer.status
                        await answer.read()
                answers[path.split("?", maxsplit=1)[0][:40], status] += 1

        await asyncio.gather(*(one(*forgery) for forgery in forgeries))
    return answers


def send_line(door: RunningDoor, line: bytes) -> bytes:
    """Write bytes on a connection, close our half, and read what comes."""
    host, port = door.base_url.removeprefix("http://").split(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection, suppress(ConnectionError):
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            said += piece
    return said


@pytest.fixture
def door(redis_url: str, sqlite_url: str, tmp_path: Path) -> Any:
    with running_door(tmp_path, broker_url=redis_url, database_url=sqlite_url) as running:
        yield running


def test_ten_thousand_forged_and_broken_requests_enqueue_nothing_and_crash_nothing(
    door: RunningDoor, redis_url: str
) -> None:
    chance = random.Random(SEED)
    forgeries = [KINDS[number % len(KINDS)](chance) for number in range(REQUESTS)]
    answers = asyncio.run(send_all(door.base_url, forgeries))
    heard = [send_line(door, line) for line in lines(chance)]

    assert sum(answers.values()) + len(heard) == 10_000
    assert not {answer: count for answer, count in answers.items() if answer[1] not in REFUSALS | {0}}
    cut = sum(count for (_, status), count in answers.items() if status == 0)
    assert cut < REQUESTS / 100
    assert not [said for said in heard if said.startswith(b"HTTP/1.1 5") or b" 202 " in said[:20]]
    assert door.process.popen.poll() is None
    log = door.process.text()
    assert "Traceback" not in log
    assert not any(secret in log for secret in (KEY, SECRET, OLD_SECRET))
    with redis.Redis.from_url(redis_url) as broker:
        assert not broker.exists("compactor:scan")
    ledger = door.service.ledger()
    try:
        assert not ledger.events.count_by_state()
        with door.http() as http:
            body = asked()
            assert http.post(COMPACTION, content=body, headers=signed(body)).status_code == 202
            assert http.post(STEP_COMPLETE, content=step(), headers=BEARER | JSON).status_code == 202
        assert sum(ledger.events.count_by_state().values()) == 2
    finally:
        ledger.close()
