"""Webhooks as they go over the wire: signed, bounded, and never followed anywhere else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.support.network import quiet_port
from tests.support.receiver import SECRET, TOKEN, Receiver, receiver
from worker.webhooks import courier
from worker.webhooks.courier import AT_ONE_ENDPOINT, SILENT_AFTER, UNSENT, Answer, carry, shown

pytestmark = pytest.mark.anyio

BODY = '{"type":"compaction.succeeded","data":{"sentence":"größer als vorher"}}'


@dataclass(frozen=True)
class Parcel:
    id: str
    endpoint: str
    body: str = BODY


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def utc_now() -> datetime:
    return datetime.now(UTC)


async def carried(*parcels: Parcel) -> dict[str, Answer]:
    return {answer.parcel_id: answer async for answer in carry(parcels, SECRET, utc_now)}


async def test_a_webhook_arrives_as_it_stands_in_the_ledger_and_its_signature_verifies(there: Receiver) -> None:
    answers = await carried(Parcel("msg-1", there.url()))
    assert answers == {"msg-1": Answer("msg-1", 204)}
    [taken] = there.taken
    assert (taken.id, taken.body, taken.headers["content-type"]) == ("msg-1", BODY, "application/json")
    assert there.forged == []


async def test_another_secret_does_not_verify() -> None:
    with receiver("whsec_" + "B" * 32) as there:
        await carried(Parcel("msg-1", there.url()))
        assert len(there.forged) == 1


async def test_a_status_that_is_no_success_is_told_with_the_wait_that_it_asks_for(there: Receiver) -> None:
    there.behaviour = {"busy": lambda _: (503, {"Retry-After": "77"}), "gone": lambda _: 410}
    answers = await carried(Parcel("msg-1", there.url("busy")), Parcel("msg-2", there.url("gone")))
    assert answers["msg-1"] == Answer("msg-1", 503, "it answered 503", 77.0)
    assert answers["msg-2"] == Answer("msg-2", 410, "it answered 410")


async def test_a_redirect_is_not_followed(there: Receiver) -> None:
    there.behaviour = {"moved": lambda _: (307, {"Location": there.url("elsewhere")})}
    answer = (await carried(Parcel("msg-1", there.url("moved"))))["msg-1"]
    assert answer.error == "it answered 307, a redirect, and none is followed"
    assert there.of("elsewhere") == []


async def test_an_endpoint_that_hangs_holds_no_other_up_and_is_not_tried_for_everything(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TIMEOUT", 0.5)
    there.behaviour = {"slow": lambda _: None}
    slow = [Parcel(f"slow-{n}", there.url("slow")) for n in range(30)]
    fine = [Parcel(f"fine-{n}", there.url("fine")) for n in range(30)]
    answers = [answer async for answer in carry([*slow, *fine], SECRET, utc_now)]
    assert {answer.parcel_id for answer in answers} == {parcel.id for parcel in [*slow, *fine]}
    assert all(answer.error is None for answer in answers[:30])
    errors = Counter(answer.error for answer in answers[30:])
    tried = errors["no answer within 0.5 s"]
    assert SILENT_AFTER <= tried < SILENT_AFTER + AT_ONE_ENDPOINT
    assert errors[UNSENT] == 30 - tried
    assert len(there.of("slow")) == tried


async def test_one_endpoint_gets_only_a_few_at_once(there: Receiver) -> None:
    answers = await carried(*(Parcel(f"msg-{n}", there.url()) for n in range(40)))
    assert len(answers) == 40
    assert there.most_at_once["ok"] <= AT_ONE_ENDPOINT


async def test_an_endpoint_that_is_away_is_told_in_a_sentence_without_its_url(there: Receiver) -> None:
    url = f"http://127.0.0.1:{quiet_port()}/hook/{TOKEN}"
    answer = (await carried(Parcel("msg-1", url)))["msg-1"]
    assert answer.status is None
    assert str(answer.error).startswith("it could not be reached: ")
    assert TOKEN not in str(answer.error)


async def test_an_answer_that_is_not_http_is_told_by_its_kind_alone(there: Receiver) -> None:
    there.behaviour = {"odd": lambda _: (99, {})}
    answer = (await carried(Parcel("msg-1", there.url("odd"))))["msg-1"]
    assert answer.error == "the exchange failed: RemoteProtocolError"


async def test_closing_it_early_leaves_nothing_under_way(there: Receiver) -> None:
    there.behaviour = {"slow": lambda _: None}
    before = asyncio.all_tasks()
    answers = carry([Parcel("msg-1", there.url("slow")), Parcel("msg-2", there.url())], SECRET, utc_now)
    assert await anext(answers) == Answer("msg-2", 204)
    await answers.aclose()
    assert asyncio.all_tasks() == before
    assert [one.id for one in there.of("ok")] == ["msg-2"]


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (f"https://hooks.test/services/{TOKEN}?key={TOKEN}#{TOKEN}", "https://hooks.test/..."),
        (f"https://user:{TOKEN}@hooks.test:8443/x", "https://hooks.test:8443/..."),
        (f"http://[::1]:80/{TOKEN}", "http://[::1]:80/..."),
    ],
)
async def test_an_endpoint_is_shown_without_what_may_be_a_secret(url: str, seen: str) -> None:
    assert shown(url) == seen
