"""The door's pages: what each lets in, what it answers, and what stands in the ledger then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.rows import NOW, closed, order
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
from tests.unit.webhook.conftest import House, OpenHouse
from worker.audit.database import LedgerUnavailable
from worker.audit.events import Arrival, Receipt
from worker.audit.records import State

NOT_AUTHORIZED = {"detail": "not authorized"}


def step(step_id: str | None = None) -> bytes:
    return json.dumps({"step_id": step_id or new_id("step")}).encode()


def asked(**fields: Any) -> bytes:
    return json.dumps(fields or {"conversation_id": new_id("conv")}).encode()


def rows(house: House) -> list[Any]:
    return house.ledger.events.recent(100)


def test_a_letta_servers_step_is_in_the_ledger_when_it_is_answered(house: House) -> None:
    step_id = new_id("step")
    answer = house.post(STEP_COMPLETE, step(step_id), BEARER | JSON)
    assert answer.status_code == 202
    [row] = rows(house)
    assert (row.source, row.key, row.state, row.received_at) == ("letta", step_id, "received", NOW)
    assert answer.json() == {"event_id": row.id, "follow": f"/compactions/{row.id}"}


def test_a_newer_letta_server_may_say_more(house: House) -> None:
    body = json.dumps({"step_id": new_id("step"), "run_id": "run-1", "more": [1]}).encode()
    assert house.post(STEP_COMPLETE, body, BEARER | JSON).status_code == 202


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_a_signed_request_is_taken_with_all_that_it_says_by_any_of_the_secrets(house: House, secret: str) -> None:
    conversation_id = new_id("conv")
    body = asked(conversation_id=conversation_id, policy="eager", reason="der Vorgang ist abgeschlossen ✓")
    answer = house.post(COMPACTION, body, signed(body, webhook_id="msg_1", secret=secret))
    assert answer.status_code == 202
    [row] = rows(house)
    assert (row.source, row.key, row.conversation_id, row.agent_id) == ("signed", "msg_1", conversation_id, None)
    assert (row.policy, row.note) == ("eager", "der Vorgang ist abgeschlossen ✓")


def test_the_same_webhook_id_again_is_answered_the_same_and_does_nothing(house: House) -> None:
    first, second = asked(agent_id=new_id("agent")), asked(agent_id=new_id("agent"))
    answers = [house.post(COMPACTION, body, signed(body, webhook_id="msg_1")) for body in (first, first, second)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    assert len(rows(house)) == 1


def test_what_is_taken_is_handed_on_once(opened: OpenHouse) -> None:
    with opened() as house:
        events = [house.post(STEP_COMPLETE, step(), BEARER | JSON).json()["event_id"] for _ in range(3)]
        again = asked()
        for _ in range(2):
            house.post(COMPACTION, again, signed(again, webhook_id="msg_1"))
        ledger = house.ledger
    # The last round is when the door closes.
    assert sorted(house.sent) == sorted([*events, *(row.id for row in rows_of(ledger) if row.source == "signed")])
    assert all(row.enqueued_at == NOW for row in rows_of(ledger))


def rows_of(ledger: Any) -> list[Any]:
    return list(ledger.events.recent(100))


WRONG_BEARERS = [
    {},
    {"Authorization": KEY},
    {"Authorization": "Bearer"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": b"Bearer \xff\xfe"},
    {"Authorization": f"Bearer {SECRET}"},
]


@pytest.mark.parametrize("headers", WRONG_BEARERS)
def test_who_does_not_hold_the_servers_key_is_refused(house: House, headers: dict[str, Any]) -> None:
    answer = house.post(STEP_COMPLETE, step(), headers | JSON)
    assert (answer.status_code, answer.json()) == (401, NOT_AUTHORIZED)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not rows(house)


def test_two_keys_in_one_request_are_none(house: House) -> None:
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer other"), *JSON.items()]
    answer = house.client.post(STEP_COMPLETE, content=step(), headers=headers)
    assert answer.status_code == 401


def test_a_forged_signature_is_refused_with_the_words_of_every_other_refusal(house: House) -> None:
    body = asked()
    good = signed(body)
    long_ago = datetime.now(UTC) - timedelta(minutes=6)
    forgeries = [
        signed(body, secret=STRANGERS_SECRET),
        signed(body, at=long_ago),
        signed(body, at=datetime.now(UTC) + timedelta(minutes=6)),
        good | {"webhook-id": "other"},
        good | {"webhook-id": "a.b"},
        good | {"webhook-id": "x" * 129},
        good | {"webhook-timestamp": "soon"},
        good | {"webhook-signature": "v1,"},
        JSON | BEARER,
    ]
    answers = [house.post(COMPACTION, body, headers) for headers in forgeries]
    answers.append(house.post(COMPACTION, asked(), good))
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (401, json.dumps(NOT_AUTHORIZED, separators=(",", ":")))
    }
    assert not rows(house)
    assert house.post(COMPACTION, body, good).status_code == 202


BAD_JSON = [
    b"",
    b"{",
    b"step",
    b"\xff\xfe",
    "{}".encode("utf-16"),
    b"\xef\xbb\xbf{}",
    b'{"step_id": NaN}',
    b'{"step_id": Infinity}',
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"step_id": "step-1", "step_id": "step-2"}',
    b'{"step_id": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_what_is_no_json_or_means_two_things_is_a_400(house: House, body: bytes) -> None:
    assert house.post(STEP_COMPLETE, body, BEARER | JSON).status_code == 400
    assert not rows(house)


A_UUID = "0c9b1b7e-6a53-4f0e-9d1c-3f1f2a7b8c9d"

BAD_STEPS = [
    "[]",
    "null",
    '"step"',
    "{}",
    '{"step_id": null}',
    '{"step_id": 1}',
    '{"step_id": ["step"]}',
    '{"step_id": ""}',
    '{"step_id": "step-1"}',
    json.dumps({"step_id": f"conv-{A_UUID}"}),
    json.dumps({"step_id": f"step-{A_UUID}\n"}),
    json.dumps({"step_id": f"step-{A_UUID}".upper()}),
    json.dumps({"step_id": "../../v1/agents"}),
    '{"step_id": "step-\\u0000"}',
    '{"step_id": "\\ud800"}',
]


@pytest.mark.parametrize("body", BAD_STEPS)
def test_a_step_that_is_none_is_a_422_that_does_not_repeat_it(house: House, body: str) -> None:
    answer = house.post(STEP_COMPLETE, body.encode(), BEARER | JSON)
    assert answer.status_code == 422
    assert set(answer.json()) == {"detail"}
    assert "agents" not in answer.text
    assert not rows(house)


BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"reason": "x"}, "name exactly one of conversation_id and agent_id"),
    ({"conversation_id": new_id("conv"), "agent_id": new_id("agent")}, "name exactly one of"),
    ({"conversation_id": "default"}, "conversation_id: is not the id of a conversation"),
    ({"agent_id": new_id("conv")}, "agent_id: is not the id of an agent"),
    ({"agent_id": new_id("agent"), "policy": "none"}, "policy: there is no such policy; there are default, eager"),
    ({"agent_id": new_id("agent"), "polcy": "eager"}, "polcy"),
    ({"agent_id": new_id("agent"), "reason": "x" * 501}, "reason: "),
    ({"agent_id": new_id("agent"), "reason": "a\x00b"}, "reason: must be printable text"),
    ({"agent_id": new_id("agent"), "reason": "a\nb"}, "reason: must be printable text"),
    ({"agent_id": new_id("agent"), "reason": "\u202eabc"}, "reason: must be printable text"),
    ({"agent_id": new_id("agent"), "reason": "\ud800"}, "reason: "),
    ({"agent_id": new_id("agent"), "reason": 7}, "reason: "),
]


@pytest.mark.parametrize(("fields", "why"), BAD_REQUESTS)
def test_a_signed_request_that_makes_no_sense_is_a_422_that_says_where(
    house: House, fields: dict[str, Any], why: str
) -> None:
    body = json.dumps(fields).encode()
    answer = house.post(COMPACTION, body, signed(body))
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert not rows(house)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_only_plain_json_is_read(house: House, headers: dict[str, str]) -> None:
    assert house.post(STEP_COMPLETE, step(), BEARER | headers).status_code == 415
    assert (
        house.post(STEP_COMPLETE, step(), BEARER | {"Content-Type": "Application/JSON;charset=UTF-8"}).status_code
        == 202
    )


def test_a_long_body_is_a_413_whether_it_says_how_long_it_is_or_not(house: House) -> None:
    long = json.dumps({"step_id": new_id("step"), "more": "x" * 70_000}).encode()
    assert house.post(STEP_COMPLETE, long, BEARER | JSON).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(long), 1000):
            yield long[start : start + 1000]

    assert house.client.post(STEP_COMPLETE, content=pieces(), headers=BEARER | JSON).status_code == 413
    assert not rows(house)


def test_no_address_is_redirected_and_no_page_is_shown_that_would_fetch_from_elsewhere(house: House) -> None:
    for path in (STEP_COMPLETE + "/", "/docs", "/redoc", "/", "//", "/webhooks/letta/../compaction"):
        assert house.client.get(path).status_code in {404, 405}, path
    assert house.client.post(COMPACTION + "/", content=b"{}", headers=JSON).status_code == 404
    assert house.client.get(COMPACTION).status_code == 405


def test_a_source_that_asks_too_much_is_told_to_come_again_but_probes_are_always_answered(opened: OpenHouse) -> None:
    with opened(COMPACTOR_WEBHOOK_RATE="5") as house:
        answers = [house.post(STEP_COMPLETE, step(), BEARER | JSON) for _ in range(50)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert refused[0].headers["retry-after"] == "1"
        assert {house.client.get("/healthz").status_code for _ in range(20)} == {200}
        assert len(rows(house)) == len(answers) - len(refused)


def test_a_page_without_a_key_refuses_everything(opened: OpenHouse) -> None:
    body = asked()
    with opened(COMPACTOR_WEBHOOK_SECRETS="") as house:
        assert house.post(COMPACTION, body, signed(body)).status_code == 401
        assert house.post(STEP_COMPLETE, step(), BEARER | JSON).status_code == 202
    with opened(STEP_COMPLETE_KEY="") as house:
        assert house.post(STEP_COMPLETE, step(), BEARER | JSON).status_code == 401
        assert house.post(STEP_COMPLETE, step(), {"Authorization": "Bearer "} | JSON).status_code == 401
        assert house.post(COMPACTION, body, signed(body)).status_code == 202


def test_an_open_door_takes_what_is_not_signed_where_no_key_is_set_and_only_there(opened: OpenHouse) -> None:
    body = asked()
    with opened(STEP_COMPLETE_KEY="", COMPACTOR_WEBHOOK_SECRETS="", COMPACTOR_WEBHOOK_OPEN="true") as house:
        event_id = house.post(STEP_COMPLETE, step(), JSON).json()["event_id"]
        assert house.client.get(f"/compactions/{event_id}").status_code == 200
        twice = [house.post(COMPACTION, body, JSON | {"webhook-id": "msg_1"}).json() for _ in range(2)]
        assert twice[0] == twice[1]
        assert house.post(COMPACTION, body, JSON).json() != house.post(COMPACTION, body, JSON).json()
    with opened(COMPACTOR_WEBHOOK_SECRETS="", COMPACTOR_WEBHOOK_OPEN="true") as house:
        assert house.post(STEP_COMPLETE, step(), JSON).status_code == 401
        assert house.post(COMPACTION, body, JSON).status_code == 202
        assert house.client.get(f"/compactions/{event_id}").status_code == 401


def test_a_compaction_is_shown_without_its_summary_or_the_servers_answer(house: House) -> None:
    compaction_id = closed(house.ledger, State.SUCCEEDED)
    for key in (KEY, SECRET, OLD_SECRET):
        answer = house.client.get(f"/compactions/{compaction_id}", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    shown = answer.json()
    assert (shown["id"], shown["state"], shown["kind"]) == (compaction_id, "succeeded", "compaction")
    assert (shown["num_messages_before"], shown["num_messages_after"]) == (43, 19)
    assert "What was said." not in answer.text
    assert not {"summary", "response", "settings", "policy_body"} & set(shown)


def test_an_event_is_shown_with_the_compaction_that_it_led_to(house: House) -> None:
    ledger = house.ledger
    compaction_id = closed(ledger, State.SUCCEEDED)
    [receipt] = ledger.events.receive([Arrival("signed", "msg_1", conversation_id="conv-1")], now=NOW)  # type: ignore[arg-type]
    [event] = ledger.events.claim([receipt.event_id], now=NOW, owner="o", lease=timedelta(minutes=1))
    ledger.watches.watch(event, [("agent-1", "conv-1")], policy="default", usage=0.8, due_at=NOW, owner="o", now=NOW)
    [watch] = ledger.watches.due(now=NOW, owner="o", lease=timedelta(minutes=1), limit=10)
    ledger.watches.close(
        watch, owner="o", reason="over_trigger", sentence="over it", compaction_id=compaction_id, now=NOW
    )
    shown = house.client.get(f"/compactions/{receipt.event_id}", headers=BEARER).json()
    assert (shown["kind"], shown["state"], shown["reason"]) == ("event", "done", "over_trigger")
    assert shown["compaction_id"] == compaction_id == shown["compaction"]["id"]
    assert shown["compaction"]["state"] == "succeeded"


def test_nothing_is_shown_to_who_holds_no_key_whether_it_is_there_or_not(house: House) -> None:
    compaction_id = closed(house.ledger, State.SUCCEEDED)
    for followed in (compaction_id, new_id("evt"), "nonsense"):
        answer = house.client.get(f"/compactions/{followed}", headers={"Authorization": "Bearer no"})
        assert (answer.status_code, answer.json()) == (401, NOT_AUTHORIZED)


def test_what_is_not_there_is_a_404_and_what_is_no_id_a_422(house: House) -> None:
    assert house.client.get(f"/compactions/{new_id('evt')}", headers=BEARER).status_code == 404
    assert house.client.get(f"/compactions/{new_id('cmp')}", headers=BEARER).status_code == 404
    for wrong in ("1", new_id("conv"), new_id("cmp") + "%0A", "%00", "%F0%9F%92%A9", "evt-" + "9" * 36):
        assert house.client.get(f"/compactions/{wrong}", headers=BEARER).status_code == 422, wrong


def test_a_database_that_is_away_is_a_503_that_says_when_to_come_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> list[Receipt]:
        raise LedgerUnavailable("gone, with its password")

    with monkeypatch.context() as patched:
        patched.setattr(type(house.ledger.events), "receive", away)
        patched.setattr(type(house.ledger.events), "get", away)
        for answer in (
            house.post(STEP_COMPLETE, step(), BEARER | JSON),
            house.client.get(f"/compactions/{new_id('evt')}", headers=BEARER),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "password" not in answer.text
    assert house.post(STEP_COMPLETE, step(), BEARER | JSON).status_code == 202


def test_the_door_is_ready_without_its_broker_and_not_without_its_database(
    opened: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as house:
        house.broker_is_there = False
        answer = house.client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "here", "database": "here", "broker": "away"})
    with opened() as house:
        monkeypatch.setattr("scheduler.webhook.current", lambda _: None)
        answer = house.client.get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "away")
        assert house.client.get("/healthz").status_code == 200


def test_a_planned_compaction_can_be_followed_from_the_start(house: House) -> None:
    planning = house.ledger.compactions.plan(order(), now=NOW)
    shown = house.client.get(f"/compactions/{planning.compaction_id}", headers=BEARER).json()
    assert (shown["state"], shown["finished_at"], shown["outcome"]) == ("planned", None, None)
