"""What the door answered, counted in the ledger."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from scheduler.door import tally
from scheduler.door.lane import Lane
from tests.support.signing import KEYS
from tests.unit.webhook.conftest import OpenHouse
from worker.audit.database import LedgerUnavailable

STEP = "/webhooks/letta/step-complete"


def test_the_answers_are_in_the_ledger_by_route_and_status_when_the_door_has_closed(opened: OpenHouse) -> None:
    good = {"authorization": f"Bearer {KEYS['STEP_COMPLETE_KEY']}", "content-type": "application/json"}
    with opened() as house:
        for _ in range(3):
            assert house.post(STEP, json.dumps({"step_id": f"step-{uuid4()}"}).encode(), good).status_code == 202
        assert house.post(STEP, b"{}", {}).status_code == 401
        assert house.client.get("/compactions/cmp-1").status_code == 401
        assert house.client.get("/admin/../secret-of-the-stranger").status_code == 404
        assert house.client.get("/healthz").status_code == 200
        ledger = house.ledger
    counted = ledger.monitoring.figures().answers
    assert counted == {(STEP, 202): 3, (STEP, 401): 1, ("/compactions/{id}", 401): 1, ("other", 404): 1}


@pytest.mark.anyio
async def test_counts_that_the_database_did_not_take_are_added_the_next_time() -> None:
    added: list[dict[tuple[str, int], int]] = []
    away = True

    def add(counts: dict[tuple[str, int], int]) -> None:
        if away:
            raise LedgerUnavailable("away")
        added.append(dict(counts))

    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 202})  # type: ignore[operator]

    async def sent(_: object) -> None:
        return None

    count = tally.Tally(add, Lane("test"))  # type: ignore[arg-type]
    counted = count.over(app)  # type: ignore[arg-type]
    await counted({"type": "http", "path": STEP}, None, sent)  # type: ignore[arg-type]
    await count.flush()
    away = False
    await counted({"type": "http", "path": STEP}, None, sent)  # type: ignore[arg-type]
    await count.flush()
    await count.flush()
    assert added == [{(STEP, 202): 2}]
