"""The Standard Webhooks specification's own vector, and every way to alter it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks.webhooks
from fastapi import HTTPException, Request

from scheduler.door.keys import Keys
from tests.support.signing import SECRET, STRANGERS_SECRET
from worker.settings import Settings

# From the specification's libraries: this secret signs this webhook like this.
BODY = b'{"test": 2432232314}'
WEBHOOK_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = "1614265330"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
ANOTHER = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
SIGNED_AT = datetime.fromtimestamp(int(TIMESTAMP), tz=UTC)

HEADERS = {"webhook-id": WEBHOOK_ID, "webhook-timestamp": TIMESTAMP, "webhook-signature": SIGNATURE}


class Clock(datetime):
    """The library's clock, at the moment of the vector."""

    at = SIGNED_AT

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override] # a plain one is enough
        return cls.at.astimezone(tz)


@pytest.fixture(autouse=True)
def then(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Clock]]:
    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Clock)
    yield Clock
    Clock.at = SIGNED_AT


def admits(headers: dict[str, str] | list[tuple[str, str]], body: bytes = BODY, secrets: str = SECRET) -> bool:
    """Whether a door with these secrets lets it in."""
    keys = Keys(Settings.load({"COMPACTOR_WEBHOOK_SECRETS": secrets}, join=False))
    pairs = headers if isinstance(headers, list) else list(headers.items())
    raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw})
    try:
        keys.admit_signed(request, keys.webhook_id(request), body)
    except HTTPException as refusal:
        return (refusal.status_code, refusal.detail) != (401, "not authorized")
    return True


def test_the_specifications_vector_verifies_by_any_of_the_secrets_and_among_other_signatures() -> None:
    assert admits(HEADERS)
    assert admits(HEADERS, secrets=f"{STRANGERS_SECRET} {SECRET}")
    assert admits(HEADERS | {"webhook-signature": f"{ANOTHER} v2,{SIGNATURE[3:]} {ASYMMETRIC} {SIGNATURE} {ANOTHER}"})
    assert not admits(HEADERS, secrets=STRANGERS_SECRET)


def test_with_any_one_byte_of_the_body_altered_it_fails() -> None:
    for at in range(len(BODY)):
        for bit in range(8):
            assert not admits(HEADERS, BODY[:at] + bytes([BODY[at] ^ (1 << bit)]) + BODY[at + 1 :])
    assert not admits(HEADERS, BODY[:-1])
    assert not admits(HEADERS, BODY + b" ")


@pytest.mark.parametrize("name", HEADERS)
def test_with_any_one_character_of_a_header_altered_added_or_left_out_it_fails(name: str) -> None:
    value = HEADERS[name]
    others = "AZaz09+/=,.-_é\x00"
    for at in range(len(value) + 1):
        altered = {value[:at] + value[at + 1 :], *(value[:at] + other + value[at:] for other in others)}
        altered |= {value[:at] + other + value[at + 1 :] for other in others}
        if name == "webhook-signature":
            # Spaces part signatures; one that is whole still holds.
            altered |= {value[:at] + " " + value[at:]} if 0 < at < len(value) else set()
        for one in altered - {value}:
            assert not admits(HEADERS | {name: one}), one


@pytest.mark.parametrize("name", HEADERS)
def test_without_a_header_or_with_two_of_one_it_fails(name: str) -> None:
    assert not admits({other: value for other, value in HEADERS.items() if other != name})
    assert not admits([*HEADERS.items(), (name, HEADERS[name])])


@pytest.mark.parametrize(
    "timestamp", ["", "+1614265330", "01614265330", "1614265330.0", "1.61426533e9", "nan", "\u0661"]
)
def test_a_timestamp_is_spelled_one_way(timestamp: str) -> None:
    value = timestamp.encode("utf-8").decode("latin-1")
    assert not admits(HEADERS | {"webhook-timestamp": value})


@pytest.mark.parametrize(
    "signature", ["", " ", "v1,", "v1", ",", "v1,,", SIGNATURE[3:], "v1," * 1000, ANOTHER, ASYMMETRIC]
)
def test_what_is_no_signature_of_it_fails(signature: str) -> None:
    assert not admits(HEADERS | {"webhook-signature": signature})


@pytest.mark.parametrize(("late", "holds"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_it_holds_for_five_minutes(late: int, holds: bool, then: type[Clock]) -> None:  # noqa: FBT001
    then.at = SIGNED_AT + timedelta(seconds=late)
    assert admits(HEADERS) is holds
