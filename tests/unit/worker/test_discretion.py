from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from scheduler.door.following import CompactionShown, follow
from tests.support.bench import bench
from tests.support.receiver import SECRET
from worker import compaction
from worker.contract.compaction import CompactionResponse
from worker.discretion import discreet, named, words
from worker.letta.errors import Call, LettaTimeout

SAID = "what the server repeats"


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "answered 500 (the server failed)": "answered 500 (the server failed)",
        "2 attempts: POST /x: answered 422 (no): a\nb": "2 attempts: POST /x: answered 422 (no); its words are in the "
        "ledger",
        "the answer was lost; it answered: {": "the answer was lost",
        "usage 0.72 is over the trigger of 0.70: compact": "usage 0.72 is over the trigger of 0.70: compact",
    }.items(),
)
def test_a_sentence_of_ours_is_told_without_what_a_server_answered(text: str, told: str) -> None:
    assert discreet(text) == told


def test_our_own_errors_are_told_in_their_words_and_named_once() -> None:
    error = LettaTimeout("no answer within 5 s", call=Call("GET", "/v1/x"))
    assert words(error) == "GET /v1/x: no answer within 5 s"
    assert named(error) == "LettaTimeout: GET /v1/x: no answer within 5 s"
    assert named(ZeroDivisionError()) == "ZeroDivisionError"


def test_what_a_model_refuses_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        CompactionResponse.model_validate_json(f'{{"summary": ["{SAID}"]}}')
    assert SAID not in named(caught.value)


def test_neither_the_door_nor_an_outgoing_webhook_passes_a_servers_words_on(tmp_path: Path) -> None:
    endpoint = {"COMPACTOR_NOTIFY_URLS": "http://127.0.0.1:9/hook", "COMPACTOR_NOTIFY_SECRET": SECRET}
    with bench(tmp_path, **endpoint) as at:
        at.letta.answers["compact"] = lambda _: httpx.Response(422, json={"detail": SAID})
        compaction_id = at.plan()
        compaction.run(at.service, compaction_id)
        assert SAID in str(at.row(compaction_id).error)
        shown = follow(at.service.ledger, compaction_id)
        assert isinstance(shown, CompactionShown)
        [delivery] = at.service.ledger.deliveries.recent(10)
        told = json.loads(delivery.body)["data"]
    assert str(shown.error) == told["error"]
    assert "answered 422" in told["error"]
    assert SAID not in shown.model_dump_json() + delivery.body
