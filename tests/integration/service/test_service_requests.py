"""What a scan asks of the Letta server is counted, in whichever worker and thread it was asked."""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import running_sandbox
from tests.support.service import deployed

POLICY = """
[policies.default]
trigger_usage = 1.0
target_usage = 0.40
idle_for = "1s"
"""


def test_a_scans_requests_are_what_the_server_has_counted(redis_url: str, sqlite_url: str, tmp_path: Path) -> None:
    with (
        running_sandbox(tmp_path, seed=30) as sandbox,
        deployed(
            tmp_path,
            letta_url=sandbox.base_url,
            broker_url=redis_url,
            database_url=sqlite_url,
            policy=POLICY,
            COMPACTOR_PAGE_SIZE="7",
        ) as service,
    ):
        service.worker()
        service.worker()
        before = sandbox.requests()
        service.compactor("scan", "--wait")
        after = sandbox.requests()
        ledger = service.ledger()
        [scan] = ledger.scans.recent(5)
        ledger.close()
    asked = {path: count - before.get(path, 0) for path, count in after.items() if path.startswith("GET /v1/")}
    assert scan.planned == 0
    assert scan.measured > 10
    assert scan.requests == sum(asked.values()), asked
    assert scan.requests > scan.measured
