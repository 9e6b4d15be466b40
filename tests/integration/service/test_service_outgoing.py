"""The service's own webhooks with real processes: others hear of a compaction, signed, sooner or later, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.support.receiver import SECRET, TOKEN, receiver
from tests.support.sandbox import Sandbox
from tests.support.service import POLICY, deployed, wait_until
from tests.support.talking import talk
from worker.audit.events import Arrival, Source
from worker.audit.records import DeliveryState

PATIENCE = 60.0


def test_a_compaction_is_told_to_all_endpoints_whatever_the_others_do(
    tmp_path: Path, sandbox: Callable[..., Sandbox], redis_url: str, database_url: str
) -> None:
    server = sandbox()
    full = talk(server)
    full.fill(0.80)
    with receiver() as there:
        there.behaviour = {
            "late": lambda taken: 500 if taken.nth == 1 else 204,
            "gone": lambda _: 410,
            "hangs": lambda _: None,
        }
        endpoints = [there.url(name) for name in ("ok", "late", "gone", "hangs")]
        with deployed(
            tmp_path,
            letta_url=server.base_url,
            broker_url=redis_url,
            database_url=database_url,
            policy=POLICY,
            COMPACTOR_NOTIFY_URLS=" ".join(endpoints),
            COMPACTOR_NOTIFY_SECRET=SECRET,
            COMPACTOR_ATTEND_EVERY="1",
            COMPACTOR_RECONCILE_EVERY="1",
        ) as service:
            ledger = service.ledger()
            asks = Arrival(Source.SIGNED, "hook-1", conversation_id=full.conversation_id, policy="eager")
            ledger.events.receive([asks], now=datetime.now(UTC))
            service.worker()
            service.beat()
            wait_until(lambda: len(there.of("late")) == 2 and bool(there.of("hangs")), PATIENCE, service.logs)
            wait_until(
                lambda: (
                    ledger.deliveries.count_by_state()
                    == {DeliveryState.DELIVERED: 2, DeliveryState.DEAD: 1, DeliveryState.PENDING: 1}
                ),
                PATIENCE,
                lambda: f"{ledger.deliveries.recent(9)}\n{service.logs()}",
            )
            wait_until(
                lambda: [one.last_error for one in ledger.deliveries.recent(9, state=DeliveryState.PENDING)] != [None],
                PATIENCE,
                service.logs,
            )
            [row] = service.export()
            rows = {one.endpoint: one for one in ledger.deliveries.recent(9)}
            ledger.close()
            logs = service.logs()
        assert there.forged == []
        [heard] = there.of("ok")
        data = heard.document["data"]
        assert heard.document["type"] == "compaction.succeeded"
        assert (data["id"], data["trigger"], data["state"]) == (row["id"], "webhook", "succeeded")
        assert "summary" not in data
        assert {taken.id for taken in there.of("late")} == {rows[there.url("late")].id}
        assert len({taken.body for taken in there.taken}) == 1
        assert rows[there.url("gone")].last_status == 410
        assert rows[there.url("hangs")].last_error == "no answer within 10 s"
        # The whole URL, which may hold a token, is nowhere but in the settings and in the ledger's own column.
        assert TOKEN not in logs
        assert TOKEN not in json.dumps([[one.last_error, one.body] for one in rows.values()])
